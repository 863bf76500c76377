# copgen with CUDA:  docker build -t copgen:cuda .
# for CPUs:          docker build -t copgen --build-arg TORCH_INDEX=<PyTorch's index of wheels for CPUs> .
# then:              docker run --rm -v "$PWD":/work copgen quickstart
#                    docker run --rm --gpus all -v "$PWD":/work copgen:cuda train --region rome
#                    docker run --rm -v "$PWD":/work -p 127.0.0.1:7860:7860 copgen studio --host 0.0.0.0 --no-browser
#
# EXTRAS are those of pyproject.toml: workers of a cluster need no others than the driver.
# The CUDA libraries come with the wheels of torch, so that both images begin alike; the host needs NVIDIA's driver and
# container toolkit. This file has been parsed and linted; no image has been built of it yet.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# GDAL in the wheels of rasterio looks for it, and slim images have none
RUN apt-get update && apt-get install -y --no-install-recommends libexpat1 && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=
ARG EXTRAS=cluster,evaluate,plot,s3,scene,studio,tensorboard
COPY --from=build /wheels /wheels
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==$(sed -n 's/^torch==//p' /tmp/constraints.txt)" \
 && pip install --no-cache-dir -c /tmp/constraints.txt "$(echo /wheels/copgen-*.whl)[$EXTRAS]" \
 && rm -rf /wheels
RUN useradd --create-home --uid 1000 copgen
USER 1000
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["copgen"]
CMD ["--help"]
