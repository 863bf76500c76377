from . import distributions as distributions, pairwise as pairwise
from .catalogue import (
    DEFAULT_METRICS as DEFAULT_METRICS,
    LEAST_SIDE as LEAST_SIDE,
    NEED_FEATURES as NEED_FEATURES,
    NEED_MODEL as NEED_MODEL,
    NEEDS as NEEDS,
    OF_MEASUREMENTS as OF_MEASUREMENTS,
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
from .in_units.classes import (
    Confusion as Confusion,
    confusion_matrix as confusion_matrix,
    judge_classes as judge_classes,
)
from .in_units.judgement import Judgement as Judgement
from .in_units.measurements import (
    BandErrors as BandErrors,
    band_errors as band_errors,
    judge_values as judge_values,
    psnr_of_bands as psnr_of_bands,
    spectral_angle as spectral_angle,
    ssim_of_bands as ssim_of_bands,
    to_decibels as to_decibels,
)
from .in_units.place_and_time import (
    EARTH_RADIUS_KM as EARTH_RADIUS_KM,
    days_apart as days_apart,
    great_circle_km as great_circle_km,
    judge_places as judge_places,
    judge_times as judge_times,
    season_days_apart as season_days_apart,
)
from .in_units.spectra import (
    BENCHMARK_NEIGHBOURS as BENCHMARK_NEIGHBOURS,
    intra_set_distance as intra_set_distance,
    judge_spectra as judge_spectra,
    manifold_precision_recall as manifold_precision_recall,
    mean_spectra as mean_spectra,
    nearest_neighbour_accuracy as nearest_neighbour_accuracy,
    range_coverage as range_coverage,
    squared_mmd as squared_mmd,
    wasserstein_of_bands as wasserstein_of_bands,
)
from .pairwise import Compare as Compare, psnr as psnr, require_ssim as require_ssim
from .perceptual import load_lpips as load_lpips
from .ranks import (
    central_coverage as central_coverage,
    coverage as coverage,
    nominal_coverage as nominal_coverage,
    rank_histogram as rank_histogram,
)
from .retrieval import chance_of_first as chance_of_first, closer_to_own as closer_to_own, nearest as nearest
from .sample_spread import (
    block_means as block_means,
    diversity as diversity,
    layouts as layouts,
    mean_over_samples as mean_over_samples,
)
