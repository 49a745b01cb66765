"""/sam2: the interface of Roboflow's inference server."""
