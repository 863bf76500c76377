from .autoencoder import (
    DEFAULT_ID as DEFAULT_ID,
    PREVIEW_ID as PREVIEW_ID,
    PUBLISHED_SCALE as PUBLISHED_SCALE,
    ImageAutoencoder as ImageAutoencoder,
    draw_latents as draw_latents,
    fingerprint as fingerprint,
    load_autoencoder as load_autoencoder,
    load_preview_decoder as load_preview_decoder,
    read_autoencoder as read_autoencoder,
    reduction_of as reduction_of,
    to_signed as to_signed,
    to_uint8 as to_uint8,
)
from .autoencoders import Autoencoders as Autoencoders, find_autoencoder as find_autoencoder
from .bundled import BUNDLED_NAME as BUNDLED_NAME, bundled_folder as bundled_folder
from .checkpoint import load_transformer as load_transformer, modalities_of as modalities_of
from .devices import (
    choose_device as choose_device,
    choose_dtype as choose_dtype,
    choose_sampling_dtypes as choose_sampling_dtypes,
    choose_training_dtype as choose_training_dtype,
    wants_gpu as wants_gpu,
    warn_of_imitation as warn_of_imitation,
)
from .diffusion import (
    PUBLISHED_LAW as PUBLISHED_LAW,
    SCHEDULE as SCHEDULE,
    SCHEDULE_ENDING_IN_NOISE as SCHEDULE_ENDING_IN_NOISE,
    Denoiser as Denoiser,
    NoiseSchedule as NoiseSchedule,
    TimestepLaw as TimestepLaw,
    add_noise as add_noise,
    denoising_loss as denoising_loss,
    denoising_loss_parts as denoising_loss_parts,
    draw_timesteps as draw_timesteps,
    min_snr_weight as min_snr_weight,
    noise_from as noise_from,
    prediction_of as prediction_of,
    schedule_of as schedule_of,
)
from .memory import (
    choose_micro_batch as choose_micro_batch,
    estimate_bytes as estimate_bytes,
    shrink_until_it_fits as shrink_until_it_fits,
)
from .pictures import Pictures as Pictures, as_bytes as as_bytes, as_pil as as_pil
from .sampler import (
    OnStep as OnStep,
    SampleNoise as SampleNoise,
    guide as guide,
    sample_latents as sample_latents,
    sample_noise as sample_noise,
)
from .solvers import (
    SECOND_LOG_SNR as SECOND_LOG_SNR,
    advice_on_calls as advice_on_calls,
    find_solver as find_solver,
    made_for as made_for,
    make_scheduler as make_scheduler,
    scheduler_at as scheduler_at,
    scheduler_for as scheduler_for,
    steps_from_noise as steps_from_noise,
)
from .transformer import Block as Block, CopGenTransformer as CopGenTransformer, initialise as initialise
from .weights import (
    DEFAULT_HUB as DEFAULT_HUB,
    PUBLISHED_ID as PUBLISHED_ID,
    WEIGHTS_NAME as WEIGHTS_NAME,
    HubOptions as HubOptions,
    fetch_from_hub as fetch_from_hub,
    find_weights as find_weights,
    hash_weights as hash_weights,
    weight_patterns as weight_patterns,
)
