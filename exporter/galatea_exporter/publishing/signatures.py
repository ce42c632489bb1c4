"""Signatures of publications, by the format of the Open Source Security Foundation's model-signing.

``model_signing verify key PUBLICATION --signature PUBLICATION/model.sig --public_key KEY`` checks
the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from galatea.errors import InvalidInput, RepositoryError
from galatea.extras import needs_extra
from galatea_exporter.release import Content, put

__all__ = ["PASSWORD", "sign", "verify"]

PASSWORD = "GALATEA_SIGN_PASSWORD"  # noqa: S105 - the variable with that of a private key


def sign(files: Mapping[str, Content], key: Path) -> bytes:
    """The signature of all files, paths and contents.

    Args:
        key: private key on an elliptic curve, PEM.

    Raises:
        InvalidInput: the key cannot be used.
        MachineError: model-signing is not installed.
    """
    with needs_extra("sign"):
        from model_signing import signing
    with tempfile.TemporaryDirectory(prefix="galatea-sign-") as scratch:
        folder, signature = Path(scratch) / "files", Path(scratch) / "signature"
        for path, content in files.items():
            put(folder / path, content)
        try:
            config = signing.Config().use_elliptic_key_signer(
                private_key=key, password=os.environ.get(PASSWORD)
            )
            config.sign(folder, signature)
        except (OSError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"{key}: nothing can be signed with it: {error}",
                "make a key: openssl ecparam -name prime256v1 -genkey -noout -out key.pem; a "
                f"password goes into {PASSWORD}",
            ) from error
        return signature.read_bytes()


def verify(folder: Path, signature: Path, key: Path) -> None:
    """Whether every file of a folder, and no other, was signed with the counterpart of a key.

    Args:
        key: public key, PEM.

    Raises:
        InvalidInput: the key cannot be read.
        RepositoryError: the signature is of another key, or of other files.
        MachineError: model-signing is not installed.
    """
    with needs_extra("sign"):
        from model_signing import verifying
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, TypeError, ValueError) as error:
        raise InvalidInput(f"{key}: is no public key: {error}", "give a key as PEM") from error
    try:
        config.verify(folder, signature)
    except Exception as error:  # its parser, its keys and its manifests have errors of their own
        raise RepositoryError(
            f"the signature does not hold ({str(error) or type(error).__name__})",
            "nothing was taken over; ask who published it for the public key",
        ) from error
