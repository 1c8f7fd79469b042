"""What is wrong in libp2p 0.8.1 and how it is put right: one module a subject."""
