"""Texts that must not leave the house: traces of patients, of people and of their keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["KINDS", "traces"]

PATIENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "OtherPatientIDs"),
    *("AccessionNumber", "ReferringPhysicianName", "OperatorsName", "InstitutionName"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
)

# Kind of trace → what it looks like. Tokens by the prefixes that their makers document.
KINDS = {
    "an attribute of a patient": rf"\b(?:{'|'.join(PATIENT)})\b",
    "an e-mail address": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*\.[A-Za-z]{2,24}\b",
    "a folder of a person": r"/home/[\w.-]+/|/Users/[\w.-]+/|/root/|[A-Za-z]:\\{1,4}Users\\{1,4}\w",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@\"]{1,64}:[^\s/@\"]{1,128}@",
    "a key of a cloud": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}|aws_secret_access_key",
    "an access token": (
        r"\bhf_[A-Za-z0-9]{30,}|\bgh[opsur]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22,}"
        r"|\bglpat-[\w-]{20}|\bxox[abprs]-[\w-]{10,}|\bsk-[A-Za-z0-9_-]{32,}"
        r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    ),
}
PATTERNS = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}


def traces(text: str) -> Iterator[tuple[str, str]]:
    """What is in a text that should not be: kind, and the first letters of it.

    Only the beginning is given back, so that a report about a secret is none itself.
    """
    for kind, pattern in PATTERNS.items():
        for found in dict.fromkeys(pattern.findall(text)):
            yield kind, found[:12] + ("…" if len(found) > 12 else "")
