"""What may be wrong with a collection of photos: twins, leaks, labels, pictures that show little.

Each file finds one kind of thing and knows nothing of tables or pages; `fieldmark.curation` puts them
together. Nothing here removes a photo.
"""
