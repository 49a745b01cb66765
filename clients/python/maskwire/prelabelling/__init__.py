"""Turns the boxes of a COCO data set into masks, as a job that can be killed, resumed and divided among machines.

boxes_file   reads the data set with the boxes, and lists what there is to do for each image
shards       divides the images among machines
journal      keeps what was done, so that nothing is asked twice
masks        asks for the masks of one image
output       puts the data set with the masks together, and writes it
"""
