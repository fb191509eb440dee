"""Networks: SwinIR, its form for inference, and the networks it is compared with. Tensors only."""
