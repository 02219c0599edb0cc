// Package promote finds the images that workloads name in YAML files, and sets
// them there. It is pure: bytes in, bytes out; it opens no file and asks no
// registry.
//
// Deciding and acting are apart. [Parse] reads a file and lists each [Use] of an
// image: where it stands, what would be pulled, and the command and the
// environment beside it. Whoever decides what is to become of them, such as
// wrapping each distinct [Reference] once, hands a [Change] for each of them to
// [File.Edit].
//
// What is edited is text. YAML is never decoded and encoded again: comments,
// order, quotes, anchors, indentation and line ends stay byte for byte. The
// result is parsed and compared with what was there; if anything but the wanted
// values differs, Edit returns an error instead. What cannot be located safely
// is refused, too.
//
// A [Lock] is what remains of that decision: which image was wrapped to which.
//
// # What is found
//
//   - Kubernetes: the items of containers, initContainers and ephemeralContainers
//     anywhere in an object, so in pod templates of every kind, of custom
//     resources too (the rule of kustomize's images transformer, which leaves out
//     CustomResourceDefinition as well); the templates of Argo Workflows; the
//     steps and sidecars of Tekton; other fields as [Options] names them.
//   - kustomize: images, inline patches and valuesInline; Flux's Kustomization.
//   - Helm values, in files with "values" in their names, Flux's HelmRelease, Argo
//     CD's Application and ApplicationSet, and k3s' HelmChart: mappings with
//     repository, tag and digest, with global.imageRegistry in front, and strings
//     under keys that end in image.
//   - compose files.
//
// # Comments
//
// Where a file names its images in a way of its own, comments say which value is
// what. They stand at the end of the line of a key:
//
//	frontend:
//	  container: registry.example.com/team/app:1.4.0 # imgwrap:image
//	worker:
//	  source: registry.example.com/team/worker # imgwrap:repository
//	  version: 1.4.0                           # imgwrap:tag
//	  sha: ""                                  # imgwrap:digest
//	  run: [celery, worker]                    # imgwrap:command
//	jobVersion: 2.0.1 # imgwrap:tag registry.example.com/team/job
//	proxy:
//	  image: envoyproxy/envoy:v1.31.0 # imgwrap:ignore
//
// The values that belong to one image stand in the same mapping, or have the
// same name behind the role (imgwrap:tag web). A name with a slash in it is the
// repository itself, for files that have the tag only. The roles are image,
// registry, repository, tag, digest, command and, in every format, ignore, which
// leaves an image or a command alone.
package promote
