# langfuse-jax on CPUs, or, with a build argument, on NVIDIA GPUs:
#
#   docker build -t langfuse-jax .
#   docker build -t langfuse-jax:cuda12 --build-arg JAX="jax[cuda12]" .
#
# The folder that you mount at /data is the working directory, and --user makes what is written there yours. For GPUs add
# --gpus all, and name langfuse-jax:cuda12:
#
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" langfuse-jax fuse --visible VIS --infrared IR --out FUSED

FROM python:3.11-slim-bookworm AS build
ARG JAX=jax
RUN python -m venv /opt/langfuse-jax
ENV PATH=/opt/langfuse-jax/bin:$PATH
# JAX, which is most of the image, stays in a layer of its own: a change of the package does not install it again.
RUN pip install --no-cache-dir "${JAX}>=0.10.2"
COPY . /src
RUN pip install --no-cache-dir "/src[align,cameras,plot,video]"

FROM python:3.11-slim-bookworm
COPY --from=build /opt/langfuse-jax /opt/langfuse-jax
# Any user may write compiled programs to this home, as --user gives one that the image does not know.
RUN useradd --uid 1000 --create-home langfuse && chmod 1777 /home/langfuse && install --directory --owner=langfuse /data
ENV PATH=/opt/langfuse-jax/bin:$PATH HOME=/home/langfuse
USER 1000
WORKDIR /data
ENTRYPOINT ["langfuse-jax"]
CMD ["--help"]
