"""Degradations: MATLAB's bicubic, Gaussian noise, JPEG. Randomness is always an argument."""
