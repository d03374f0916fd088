"""Who made an artefact from what: an in-toto statement beside the manifest, signed or not."""

from engine_builder.provenance.evidence import Evidence, attach, examine, sign_directory
from engine_builder.provenance.keys import PublicKey, SigningKey, load_public_key, load_signing_key
from engine_builder.provenance.statement import make_statement

__all__ = [
    "Evidence",
    "PublicKey",
    "SigningKey",
    "attach",
    "examine",
    "load_public_key",
    "load_signing_key",
    "make_statement",
    "sign_directory",
]
