"""Differentiable tensor operators with native kernels."""

from . import _forks as _forks
from ._dispatch import Backend
from .conv3x3 import conv3x3, conv3x3_reference
from .conv_block import conv_block, conv_block_reference
from .conv_glu_pool import conv_glu_pool, conv_glu_pool_reference
from .depthwise_prelu import depthwise_prelu, depthwise_prelu_reference
from .glu_pool import glu_pool, glu_pool_reference
from .gru_scan import gru, gru_scan, gru_scan_reference
from .mask_resynthesis import band_weights, mask_resynthesis, mask_resynthesis_reference
from .mel_mask import MaskedMel, mel_mask, mel_mask_reference
from .mel_spectrogram import mel_filterbank, mel_spectrogram, mel_spectrogram_reference
from .pit_loss import PITResult, pit_loss, pit_loss_reference
from .reorder import reorder, reorder_reference
from .reverb_mix import Mixture, reverb_mix, reverb_mix_reference

__all__ = [
    "Backend",
    "MaskedMel",
    "Mixture",
    "PITResult",
    "band_weights",
    "conv3x3",
    "conv3x3_reference",
    "conv_block",
    "conv_block_reference",
    "conv_glu_pool",
    "conv_glu_pool_reference",
    "depthwise_prelu",
    "depthwise_prelu_reference",
    "glu_pool",
    "glu_pool_reference",
    "gru",
    "gru_scan",
    "gru_scan_reference",
    "mask_resynthesis",
    "mask_resynthesis_reference",
    "mel_filterbank",
    "mel_mask",
    "mel_mask_reference",
    "mel_spectrogram",
    "mel_spectrogram_reference",
    "pit_loss",
    "pit_loss_reference",
    "reorder",
    "reorder_reference",
    "reverb_mix",
    "reverb_mix_reference",
]
