"""What a sound and a 3D model are: how long one is, and whether it is all there."""
