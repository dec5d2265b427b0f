"""Opening a checkpoint: its files, its processor, the device it goes to."""
