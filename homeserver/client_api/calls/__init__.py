"""What calls need: the TURN server, delayed events, and the transports of MatrixRTC."""
