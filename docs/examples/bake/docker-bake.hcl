# docker buildx bake --push
#
# The Dockerfile knows nothing of OpenTelemetry: imgwrap's frontend builds it as
# its own would, and adds what imgwrap adds to a finished image.

variable "REGISTRY" {
  default = "registry.example.com"
}

target "traced" {
  args = {
    BUILDKIT_SYNTAX  = "${REGISTRY}/imgwrap"
    IMGWRAP_LAYERS   = "${REGISTRY}/otel" # filled by: imgwrap layer push
    IMGWRAP_ENDPOINT = "http://collector:4318"
  }
}

target "default" {
  inherits = ["traced"]
  args = {
    IMGWRAP_SERVICE_NAME = "shop"
  }
  tags = ["${REGISTRY}/shop:1.0"]
}

# As it is without.
target "plain" {
  tags = ["${REGISTRY}/shop:1.0-plain"]
}
