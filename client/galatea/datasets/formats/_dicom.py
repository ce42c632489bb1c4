"""DICOM: Secondary Capture images that say they are synthetic."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import DTypeLike, NDArray

from galatea import _png
from galatea.card import ModelCard
from galatea.datasets.formats._format import File, Format, Shard

if TYPE_CHECKING:
    from highdicom.sc import SCImage
    from pydicom import DataElement, Dataset
    from pydicom.uid import UID

# The catalogue's words and DICOM's defined terms; anything else is OT, other.
MODALITIES = {
    "ct": "CT",
    "dermoscopy": "DMS",
    "endoscopy": "ES",
    "fundus photography": "OP",
    "histopathology": "SM",
    "mammography": "MG",
    "mri": "MR",
    "oct": "OPT",
    "ultrasound": "US",
    "x-ray": "DX",
}
# Namespace of the identifiers.
IDENTIFIERS = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/galatea-triton/galatea")
UNKNOWN = "2.25.0"  # identifier of a blank
LONG_STRING, SHORT_TEXT = 64, 1024  # characters of the value representations LO and ST


class Dicom(Format):
    """``SHARD/KEY.dcm`` and ``SHARD/KEY-mask.dcm``, which refers to its image.

    Each sample is a patient of its own, in a study with a series for the image and one for the
    mask. Identifiers follow from the data set and the key; nothing tells a date, a person or a
    machine. The provenance is the JSON of Image Comments.
    """

    name = "dicom"
    title = "DICOM Secondary Capture, marked as synthetic"
    extra = "dicom"
    module = "highdicom.sc"
    packages = ("highdicom", "pydicom")

    def holds(self, dtype: DTypeLike, channels: int) -> bool:
        return _png.fits(dtype, channels)  # the same pixels as those of PNG

    def files(self, shard: Shard) -> Iterator[File]:
        samples = shard.samples
        kinds = {"image": samples.images}
        if samples.masks is not None:
            kinds = {"mask": samples.masks, **kinds}
        # One object serves all images: to make one takes longer than to write it.
        blanks = {kind: _blank(shard, kind, pixels[0]) for kind, pixels in kinds.items()}
        for i in range(len(shard)):
            for kind, pixels in kinds.items():
                ending = "" if kind == "image" else f"-{kind}"
                path = f"{shard.stem()}/{shard.key(i)}{ending}.dcm"
                yield File(path, _filled(blanks[kind], shard, i, kind, pixels[i]))


def _blank(shard: Shard, kind: str, pixels: NDArray[Any]) -> SCImage:
    """What is the same for all images, or masks, of a shard; `pixels` [H, W, C] is one of them."""
    from highdicom.sc import SCImage
    from pydicom.uid import ExplicitVRLittleEndian

    card = shard.samples.card
    grey = pixels.shape[-1] == 1
    blank = SCImage(
        pixel_array=pixels[:, :, 0] if grey else pixels,
        photometric_interpretation="MONOCHROME2" if grey else "RGB",
        bits_allocated=8 * pixels.itemsize,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=UNKNOWN,
        series_instance_uid=UNKNOWN,
        series_number=1 if kind == "image" else 2,
        series_description=f"Synthetic {kind}",
        sop_instance_uid=UNKNOWN,
        instance_number=1,
        manufacturer="galatea",
        manufacturer_model_name=_line(f"{card.name} v{card.version}"),
        software_versions=_line(card.exporter),
        patient_name="Synthetic^Galatea",
        content_qualification="RESEARCH",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set="ISO_IR 192",
    )
    blank.walk(_forget_time)
    # Nobody knows how a patient would have lain.
    blank.PatientOrientation = []
    blank.Laterality = ""
    blank.Modality = _modality(card)
    blank.ConversionType = "SYN"
    blank.SyntheticData = "YES"
    blank.BurnedInAnnotation = "NO"
    blank.ImageType = ["DERIVED", "SECONDARY"]
    what = shard.provenance()["Description"]
    made = f"{what}: {kind} of {card.name} version {card.version}"
    blank.DerivationDescription = made[:SHORT_TEXT]
    return blank


def _filled(blank: SCImage, shard: Shard, i: int, kind: str, pixels: NDArray[Any]) -> memoryview:
    """The file of sample `i`."""
    from pydicom import Dataset

    blank.PatientID = _line(f"galatea-{shard.dataset[:16]}-{shard.key(i)}")
    blank.StudyID = shard.key(i)
    blank.StudyInstanceUID = _uid(shard, i, "study")
    blank.SeriesInstanceUID = _uid(shard, i, f"series of the {kind}")
    blank.SOPInstanceUID = _uid(shard, i, kind)
    blank.file_meta.MediaStorageSOPInstanceUID = blank.SOPInstanceUID
    if kind == "mask":
        image = Dataset()
        image.ReferencedSOPClassUID = blank.SOPClassUID
        image.ReferencedSOPInstanceUID = _uid(shard, i, "image")
        blank.ReferencedImageSequence = [image]
    blank.ImageComments = json.dumps(shard.samples.provenance(i), ensure_ascii=False)
    blank.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    buffer = io.BytesIO()
    blank.save_as(buffer, enforce_file_format=True)
    return buffer.getbuffer()


def _forget_time(dataset: Dataset, element: DataElement) -> None:
    """Deletes when it was made by this machine's clock, which highdicom writes down."""
    if element.VR in ("DA", "DT", "TM") and element.value:
        del dataset[element.tag]


def _uid(shard: Shard, i: int, what: str) -> UID:
    """An identifier of the UUID-derived kind, the same for the same sample of the same job."""
    from pydicom.uid import UID

    name = f"{shard.dataset}/{shard.key(i)}/{what}"
    return UID(f"2.25.{uuid.uuid5(IDENTIFIERS, name).int}")


def _modality(card: ModelCard) -> str:
    word = card.modality.strip()
    known = MODALITIES.get(word.lower(), word.upper())
    return known if known in MODALITIES.values() else "OT"


def _line(text: str) -> str:
    """A text as DICOM's long string, in which a backslash would begin another value."""
    return text.replace("\\", "/")[:LONG_STRING]
