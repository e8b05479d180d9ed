"""An autoencoder whose encoder is written down instead of trained: a block PCA in the weights of AutoencoderKLFlux2.

Trained from scratch, thin encoders stayed grey for thousands of steps: group normalisation removes the flat colour that
matters most in product photos. A linear map of 8x8 blocks keeps it, costs nothing to make, and is local: an edit
changes only the latents it touches. It fits the class exactly: strided convolutions project 2x2 patches three times;
`silu(x) - silu(-x) = x` undoes the activation; large constant channels ("anchors") fix the statistics of the final
group normalisation. The decoder starts as a linear read-out of colours and is trained (see `vae.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLFlux2
from diffusers.models.autoencoders.vae import Decoder
from torch import Tensor, nn

ANCHOR = 30.0  # against latents of about 1: the normaliser then scales by a constant, to a percent
WHITENING = 0.5  # 1 gives every latent unit variance, 0 leaves the colours far above the details
LOG_VARIANCE = -12.0  # the encoder is deterministic


@torch.no_grad()
def write_encoder(vae: AutoencoderKLFlux2, images_B3HW: Tensor) -> None:
    """Write the block PCA of `images` in [-1, 1] into the encoder, and its statistics into the normaliser."""
    encoder, widths = vae.encoder, vae.config.block_out_channels
    for block in encoder.modules():
        if hasattr(block, "conv2"):
            _zero(block.conv2)
    _route(encoder.conv_in, torch.eye(3))
    features = images_B3HW
    for level, width in enumerate(widths[:-1]):
        if level:
            _route(encoder.down_blocks[level].resnets[0].conv_shortcut, torch.eye(features.shape[1]))
        patches = F.pixel_unshuffle(features, 2)
        basis = _principal(patches, min(width, patches.shape[1]))
        _project_patches(encoder.down_blocks[level].downsamplers[0].conv, basis)
        features = torch.einsum("oc,bchw->bohw", basis, patches)
    basis = _principal(features, vae.config.latent_channels)
    _write_head(vae, basis, torch.einsum("oc,bchw->bohw", basis, features))


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _route(conv: nn.Conv2d, matrix: Tensor) -> None:
    """Make a convolution apply `matrix` (out, in) to each pixel; channels beyond it are silent."""
    _zero(conv)
    centre = conv.kernel_size[0] // 2
    conv.weight[: matrix.shape[0], : matrix.shape[1], centre, centre] = matrix.to(conv.weight)


def _project_patches(conv: nn.Conv2d, basis: Tensor) -> None:
    """A strided 3x3 convolution that multiplies 2x2 patches, channels in pixel-unshuffle order, by `basis`."""
    _zero(conv)
    kernel = basis.unflatten(1, (-1, 2, 2))
    conv.weight[: kernel.shape[0], : kernel.shape[1], :2, :2] = kernel


def _principal(features: Tensor, count: int) -> Tensor:
    """The `count` strongest directions (count, C) of B C H W features, without centring, strongest first."""
    flat = features.transpose(0, 1).flatten(1)
    _, vectors = torch.linalg.eigh(flat @ flat.T / flat.shape[1])
    basis = vectors.flip(1)[:, :count].T
    return basis * torch.where(basis.sum(1, keepdim=True) < 0, -1.0, 1.0)


def _write_head(vae: AutoencoderKLFlux2, basis: Tensor, latents: Tensor) -> None:
    """+x, -x and anchors through the last normaliser and activation, then x again."""
    count, encoder = basis.shape[0], vae.encoder
    shortcut, norm = encoder.down_blocks[-1].resnets[0].conv_shortcut, encoder.conv_norm_out
    _route(shortcut, torch.cat([basis, -basis]))
    anchors = torch.arange(shortcut.out_channels - 2 * count)
    shortcut.bias[2 * count :] = ANCHOR * (1 - 2.0 * (anchors % 2))
    power = 2 * latents.square().sum(1).mean() + ANCHOR**2 * len(anchors)
    nn.init.constant_(norm.weight, float((power / shortcut.out_channels).sqrt()))
    nn.init.zeros_(norm.bias)
    _route(encoder.conv_out, torch.cat([torch.eye(count), -torch.eye(count)], 1))
    encoder.conv_out.bias[count:] = LOG_VARIANCE
    _route(vae.quant_conv, torch.eye(2 * count))
    vae.quant_conv.bias.zero_()
    _fit_normaliser(vae, latents)


def _fit_normaliser(vae: AutoencoderKLFlux2, latents: Tensor) -> None:
    """Partly whitened packed latents of mean 0 and, over all channels, variance 1."""
    packed = F.pixel_unshuffle(latents, 2)
    deviation = packed.std((0, 2, 3))
    divisor = deviation**WHITENING
    scaled = deviation / divisor
    vae.bn.running_mean.copy_(packed.mean((0, 2, 3)))
    vae.bn.running_var.copy_((divisor * scaled.square().mean().sqrt()).square())


@torch.no_grad()
def start_decoder(vae: AutoencoderKLFlux2, images_B3HW: Tensor) -> None:
    """Let the decoder begin by painting every block in its mean colour; its residual blocks begin as identities."""
    decoder, latents = vae.decoder, vae.encode(images_B3HW).latent_dist.mode()
    colours = F.avg_pool2d(images_B3HW, 2 ** (len(vae.config.block_out_channels) - 1))
    read = torch.linalg.lstsq(latents.transpose(0, 1).flatten(1).T, colours.transpose(0, 1).flatten(1).T).solution.T
    for block in decoder.modules():
        if hasattr(block, "conv2"):
            _zero(block.conv2)
        if getattr(block, "conv_shortcut", None) is not None:
            _route(
                block.conv_shortcut,
                torch.eye(block.conv_shortcut.out_channels, block.conv_shortcut.in_channels),
            )
    for block in decoder.up_blocks:
        for upsampler in block.upsamplers or ():
            _route(upsampler.conv, torch.eye(upsampler.conv.in_channels))
    _route(vae.post_quant_conv, torch.eye(latents.shape[1]))
    _start_colours(decoder, read)


def _start_colours(decoder: Decoder, read: Tensor) -> None:
    """Channels 0-5 carry +colour and -colour, 6 and 7 anchors, the others the strongest latents."""
    count, width = read.shape[1], decoder.conv_norm_out.num_channels
    rest = torch.eye(count)[: width - 8] / 8
    _route(
        decoder.conv_in,
        torch.cat([read, -read, torch.zeros(2, count), rest, torch.eye(count)[: count - len(rest)] / 8]),
    )
    decoder.conv_in.bias[6:8] = torch.tensor([4.0, -4.0])
    spread = float(torch.tensor((2 * 16 + 6 * 0.4 + (width - 8) * 0.2) / width).sqrt())
    nn.init.constant_(decoder.conv_norm_out.weight, spread)
    _route(decoder.conv_out, torch.cat([torch.eye(3), -torch.eye(3)], 1))


class LinearEncoder:
    """Images B3HW in [-1, 1] to tokens BSC with one matrix: what the written encoder does, to 2e-4 of its power.

    Training encodes hundreds of images a step; through the convolutions that took as long as the transformer.
    `encode` is the family's own encoder, to which the matrix is fitted on `images` B3HW.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], images_B3HW: Tensor, multiple: int) -> None:
        self.multiple = multiple
        patches = self._patches(images_B3HW).flatten(0, 1).double()
        tokens = torch.cat([encode(part) for part in images_B3HW.split(64)]).flatten(0, 1).double()
        ones = torch.ones(len(patches), 1, dtype=patches.dtype, device=patches.device)
        solution = torch.linalg.lstsq(torch.cat([patches, ones], 1).cpu(), tokens.cpu()).solution.float()
        self.matrix, self.offset = solution[:-1].to(images_B3HW.device), solution[-1].to(images_B3HW.device)

    def to(self, device: torch.device) -> LinearEncoder:
        """The same on another device."""
        self.matrix, self.offset = self.matrix.to(device), self.offset.to(device)
        return self

    def _patches(self, images: Tensor) -> Tensor:
        return F.pixel_unshuffle(images, self.multiple).flatten(2).transpose(1, 2)

    def __call__(self, images_B3HW: Tensor) -> Tensor:
        return self._patches(images_B3HW) @ self.matrix + self.offset
