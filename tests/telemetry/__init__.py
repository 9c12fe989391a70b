"""What systems that watch programs are told."""
