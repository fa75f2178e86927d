"""Which weights have a name of their own, and what exactly does each name stand for?

A name stands for the bytes that its authors released, and for nothing else: what is downloaded, and what
lies in a folder of the user's, is compared with the hash that stands here. Hashes and sizes are those that
at least two independent projects publish for the same release (the guide on models says how they were
found). A name without such evidence is not in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

_REAL_ESRGAN: Final = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_SWINIR: Final = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0"
_INSIGHTFACE: Final = "https://github.com/deepinsight/insightface/releases/download/v0.7"

#: Where insightface itself unpacks its packs.
_INSIGHTFACE_HOME: Final = "~/.insightface/models"


class KnownWeights(msgspec.Struct, frozen=True, kw_only=True):
    """What a name stands for.

    sha256      of what comes from `url`
    licence     its SPDX identifier, else what it allows in words
    members     of an archive: files that it holds for certain, with their sha256; empty for a plain file
    home        folder in which another program keeps such archives unpacked
    """

    url: str
    sha256: str
    size_bytes: int
    licence: str
    members: Mapping[str, str] = {}
    home: str | None = None

    @property
    def file(self) -> str:
        """Name of what is downloaded."""
        return self.url.rpartition("/")[2]

    @property
    def weights(self) -> str:
        """Name of a file that is loaded; its ending tells the format."""
        return next(iter(self.members), self.file)

    @property
    def host(self) -> str:
        """Who sends it."""
        return urlsplit(self.url).hostname or self.url


def _upscaler(url: str, sha256: str, size_bytes: int, licence: str = "BSD-3-Clause") -> KnownWeights:
    return KnownWeights(url=url, sha256=sha256, size_bytes=size_bytes, licence=licence)


def _faces(name: str, sha256: str, size_bytes: int, members: Mapping[str, str]) -> KnownWeights:
    return KnownWeights(
        url=f"{_INSIGHTFACE}/{name}.zip",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="non-commercial research only",
        members=members,
        home=_INSIGHTFACE_HOME,
    )


_SCRFD_10G: Final = "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"
_FACE_DETAILS: Final = {
    "1k3d68.onnx": "df5c06b8a0c12e422b2ed8947b8869faa4105387f199c477af038aa01f9a45cc",
    "2d106det.onnx": "f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf",
    "genderage.onnx": "4fde69b1c810857b88c64a335084f1c3fe8f01246c9a191b48c7bb756d6652fb",
}

KNOWN: Final[dict[str, KnownWeights]] = {
    "RealESRGAN_x4plus": _upscaler(
        f"{_REAL_ESRGAN}/v0.1.0/RealESRGAN_x4plus.pth",
        "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        67_040_989,
    ),
    "RealESRGAN_x2plus": _upscaler(
        f"{_REAL_ESRGAN}/v0.2.1/RealESRGAN_x2plus.pth",
        "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        67_061_725,
    ),
    "RealESRGAN_x4plus_anime_6B": _upscaler(
        f"{_REAL_ESRGAN}/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
        "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        17_938_799,
    ),
    "RealESRNet_x4plus": _upscaler(
        f"{_REAL_ESRGAN}/v0.1.1/RealESRNet_x4plus.pth",
        "a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
        67_040_989,
    ),
    "realesr-general-x4v3": _upscaler(
        f"{_REAL_ESRGAN}/v0.2.5.0/realesr-general-x4v3.pth",
        "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        4_885_111,
    ),
    "realesr-animevideov3": _upscaler(
        f"{_REAL_ESRGAN}/v0.2.5.0/realesr-animevideov3.pth",
        "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        2_504_012,
    ),
    "ESRGAN_SRx4": _upscaler(
        f"{_REAL_ESRGAN}/v0.1.1/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        "ff704c30ff560305e48ed1f4db895e525ab6bc81a46fafe80c0094a271c806d9",
        66_922_040,
    ),
    "001_classicalSR_DF2K_s64w8_SwinIR-M_x4": _upscaler(
        f"{_SWINIR}/001_classicalSR_DF2K_s64w8_SwinIR-M_x4.pth",
        "4e78e33f22c1aa8a773db0cf4a7381bae97c2362c717f155439ebc690cbd9215",
        67_869_037,
        "Apache-2.0",
    ),
    "003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x4_GAN": _upscaler(
        f"{_SWINIR}/003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x4_GAN.pth",
        "b9afb61e65e04eb7f8aba5095d070bbe9af28df76acd0c9405aeb33b814bcfc6",
        67_129_861,
        "Apache-2.0",
    ),
    "003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN": _upscaler(
        f"{_SWINIR}/003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN.pth",
        "99adfa91350a84c99e946c1eb3d8fce34bc28f57d807b09dc8fe40a316328c0a",
        142_473_939,
        "Apache-2.0",
    ),
    "buffalo_l": _faces(
        "buffalo_l",
        "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        288_621_354,
        {
            "det_10g.onnx": _SCRFD_10G,
            "w600k_r50.onnx": "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
            **_FACE_DETAILS,
        },
    ),
    "buffalo_s": _faces(
        "buffalo_s",
        "d85a87f503f691807cd8bb97128bdf7a0660326cd9cd02657127fa978bab8b5e",
        127_607_557,
        {
            "det_500m.onnx": "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
            "w600k_mbf.onnx": "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
        },
    ),
    "antelopev2": _faces(
        "antelopev2",
        "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
        360_662_982,
        {
            "scrfd_10g_bnkps.onnx": _SCRFD_10G,
            "glintr100.onnx": "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
            **_FACE_DETAILS,
        },
    ),
}


def known_name_like(text: str) -> str | None:
    """The name that somebody meant who wrote it with its ending, or in other capitals."""
    stem = text.removesuffix(".pth").removesuffix(".zip").casefold()
    return next((name for name in KNOWN if name.casefold() == stem and name != text), None)
