"""Convolutional CRF: mean field of the dense CRF limited to a window, so that each step is a convolution.

Model and inference: Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials,
NIPS 2011. The window: Teichmann and Cipolla, Convolutional CRFs for Semantic Segmentation, BMVC 2019. Unlike the fully
connected CRF of DeepLab v1 and v2, it connects no pixels beyond the window.

    scores ------------+------------------------------(+)--> logits --> ... --> scores
                       |                               |
                    softmax -> sum over neighbours, weighted by distance and by colour difference
                                                       |
    image  -> weights (once) --------------------------+
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvCRF(nn.Module):
    """`iterations` steps of mean field with Potts compatibility over a window of `size` x `size`.

    theta_alpha and theta_gamma are widths in pixels of the scores, theta_beta is a width in units of the image (for a
    normalised one, standard deviations). Nothing is learned. Input: float scores (N, C, h, w) and image (N, 3, h, w) of
    the same size. Output: float scores (N, C, h, w), the logarithm of the marginals up to a constant at each pixel.
    """

    neighbour: Tensor
    distance: Tensor

    def __init__(
        self,
        *,
        iterations: int = 5,
        size: int = 7,
        weight_appearance: float = 4.0,
        weight_smoothness: float = 3.0,
        theta_alpha: float = 5.0,
        theta_beta: float = 0.2,
        theta_gamma: float = 1.0,
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.weights = (weight_appearance, weight_smoothness)
        self.thetas = (theta_alpha, theta_beta, theta_gamma)
        others = [i for i in range(size * size) if i != size * size // 2]  # all but the centre
        self.register_buffer("neighbour", torch.eye(size * size)[others].reshape(-1, 1, size, size), persistent=False)
        step = (torch.arange(size) - size // 2) ** 2
        squared = (step[:, None] + step[None, :]).flatten()[others].float()
        self.register_buffer("distance", squared.reshape(-1, 1, 1), persistent=False)

    def forward(self, scores: Tensor, image: Tensor) -> Tensor:
        kernel = self.kernel(image)
        logits = scores
        for _ in range(self.iterations):
            logits = scores + (kernel * self.neighbours(logits.softmax(1))).sum(2)
        return logits

    def neighbours(self, x: Tensor) -> Tensor:
        """Gather the values at the K other places of the window: (N, C, h, w) -> (N, C, K, h, w); 0 outside."""
        height, width = x.shape[-2:]
        shifted = F.conv2d(x.reshape(-1, 1, height, width), self.neighbour, padding=self.neighbour.shape[-1] // 2)
        return shifted.reshape(-1, x.shape[1], self.neighbour.shape[0], height, width)

    def kernel(self, image: Tensor) -> Tensor:
        """Compute the weight of each neighbour: (N, 3, h, w) -> (N, 1, K, h, w); each kernel sums to its weight."""
        alpha, beta, gamma = self.thetas
        inside = self.neighbours(torch.ones_like(image[:, :1]))
        contrast = ((self.neighbours(image) - image.unsqueeze(2)) ** 2).sum(1, keepdim=True)
        appearance = inside * torch.exp(-self.distance / (2 * alpha**2) - contrast / (2 * beta**2))
        smoothness = inside * torch.exp(-self.distance / (2 * gamma**2))
        # the floor avoids a division by zero at an outlier that resembles none of its neighbours
        parts = (part / part.sum(2, keepdim=True).clamp(min=1e-6) for part in (appearance, smoothness))
        return sum((w * part for w, part in zip(self.weights, parts, strict=True)), start=torch.zeros_like(inside))
