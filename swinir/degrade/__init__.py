"""Degradations: MATLAB's bicubic, Gaussian noise, JPEG, and the random chains of BSRGAN and Real-ESRGAN.

Randomness is always an argument.
"""
