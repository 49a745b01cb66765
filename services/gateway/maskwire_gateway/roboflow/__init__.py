"""/sam2: the interface that clients of Roboflow's inference server speak."""
