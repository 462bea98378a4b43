"""SDP+: losses, training and files of the linear layers."""
