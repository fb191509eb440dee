"""One way from a low-quality image tensor to a restored one."""
