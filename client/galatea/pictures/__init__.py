"""Pictures from files, for models that translate them.

>>> from galatea import Client, pictures
>>> with Client() as client:
...     for batch in client.translate_stream("density", pictures.read(["scans/"])):
...         batch.save("out")

PNG, JPEG, TIFF and BMP are read through Pillow, NumPy's ``.npy`` and ``.npz``, DICOM through
pydicom (``pip install 'galatea[dicom]'``) and NIfTI through nibabel
(``pip install 'galatea[nifti]'``). One file is in memory at a time.
"""

from galatea.pictures._files import File, find
from galatea.pictures._picture import Picture, as_picture
from galatea.pictures._reading import join_channels, pictures, read, read_files

__all__ = [
    "File",
    "Picture",
    "as_picture",
    "find",
    "join_channels",
    "pictures",
    "read",
    "read_files",
]
