from . import distributions as distributions, pairwise as pairwise
from .catalogue import (
    DEFAULT_METRICS as DEFAULT_METRICS,
    LEAST_SIDE as LEAST_SIDE,
    NEED_FEATURES as NEED_FEATURES,
    NEED_MODEL as NEED_MODEL,
    NEEDS as NEEDS,
    QUANTITIES as QUANTITIES,
    Better as Better,
    Metric as Metric,
    parse_metrics as parse_metrics,
)
from .confidence import (
    LEVEL as LEVEL,
    RESAMPLES as RESAMPLES,
    Estimate as Estimate,
    Floats as Floats,
    Weights as Weights,
    draw_weights as draw_weights,
    place_of as place_of,
    weighted_mean as weighted_mean,
)
from .features import (
    AutoencoderFeatures as AutoencoderFeatures,
    FeatureNetwork as FeatureNetwork,
    features_of as features_of,
    in_units_of_truth as in_units_of_truth,
    load_features as load_features,
)
from .pairwise import Compare as Compare, psnr as psnr, require_ssim as require_ssim
from .perceptual import load_lpips as load_lpips
from .retrieval import chance_of_first as chance_of_first, closer_to_own as closer_to_own, nearest as nearest
from .sample_spread import (
    block_means as block_means,
    coverage as coverage,
    diversity as diversity,
    layouts as layouts,
    mean_over_samples as mean_over_samples,
    nominal_coverage as nominal_coverage,
)
