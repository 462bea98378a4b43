"""Text: prompts, their embeddings, representative vectors."""
