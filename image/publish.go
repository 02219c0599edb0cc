package image

// DockerfileTag is the tag under which a repository of published layers keeps
// those of a release that Dockerfiles copy: the bundle and a launcher that fits
// every image, and protobuf's native code if native.
func DockerfileTag(release string, native bool) string {
	if native {
		return release + "-dockerfile-native"
	}
	return release + "-dockerfile"
}
