"""Mean and standard deviation of ImageNet's pixels, by which SAM, timm's and torchvision's weights expect images."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255
IMAGENET_STD = (58.395, 57.12, 57.375)
