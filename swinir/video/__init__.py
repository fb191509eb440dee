"""Video clips: decoding with its checks, the frames through the restore path, encoding in segments, and flicker."""
