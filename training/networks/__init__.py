"""Networks: backbones with a CAM head, decoder, frozen perceptual network, pretrained weights."""
