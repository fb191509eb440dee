"""Folders and buckets of images on several machines or GPUs, by Ray."""
