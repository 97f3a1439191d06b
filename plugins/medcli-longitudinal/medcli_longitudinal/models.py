"""Every network and building block under the document's names: `from medcli_longitudinal.models import …`."""

from __future__ import annotations

from medcli_longitudinal.auxiliary import (
    ClassificationModel,
    ContrastiveEncoder,
    Discriminator,
    LongitudinalEncoder,
    MaskedReconstructionModel,
)
from medcli_longitudinal.bottleneck import (
    BottleneckBlock,
    BottleneckEncoder,
    Compression,
    ContrastiveBottleneckBlock,
    ConvBlockBranch,
    FeatureCompression,
    TechnicalBottleneck,
)
from medcli_longitudinal.decoders import (
    Decoder1,
    Decoder2,
    Decoder4,
    Decoder5,
    Decoder6,
    DecoderBlock,
    PatchDecoder6,
    PlainDecoder,
    UNetDecoder,
)
from medcli_longitudinal.document import LongitudinalMIMModel, LongitudinalMIMModelBig
from medcli_longitudinal.encoder import (
    ChannelExpansionBlock,
    ChannelExpansionLayer,
    EfficientNetMiniEncoder,
    MBConv,
)
from medcli_longitudinal.subtract import SubtractModel, SubtractModelBig
from medcli_longitudinal.transformer import (
    FeatureEmbeddings,
    SamplingConvBlock,
    TransformerBranch,
    VisionTransformer,
)

__all__ = [
    "BottleneckBlock",
    "BottleneckEncoder",
    "ChannelExpansionBlock",
    "ChannelExpansionLayer",
    "ClassificationModel",
    "Compression",
    "ContrastiveBottleneckBlock",
    "ContrastiveEncoder",
    "ConvBlockBranch",
    "Decoder1",
    "Decoder2",
    "Decoder4",
    "Decoder5",
    "Decoder6",
    "DecoderBlock",
    "Discriminator",
    "EfficientNetMiniEncoder",
    "FeatureCompression",
    "FeatureEmbeddings",
    "LongitudinalEncoder",
    "LongitudinalMIMModel",
    "LongitudinalMIMModelBig",
    "MBConv",
    "MaskedReconstructionModel",
    "PatchDecoder6",
    "PlainDecoder",
    "SamplingConvBlock",
    "SubtractModel",
    "SubtractModelBig",
    "TechnicalBottleneck",
    "TransformerBranch",
    "UNetDecoder",
    "VisionTransformer",
]
