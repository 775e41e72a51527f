"""`fieldmark predict`: a classifier and photos in; labels sorted by confidence out.

PyTorch is not imported here: a converted graph runs without it, so that one photo is answered at once.
"""
