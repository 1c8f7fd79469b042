"""The work-arounds for defects of libp2p 0.8.1, a module for each subject."""
