package main

// A source is a file, or several, of a module, with what the kinds of a project
// look like: CustomResourceDefinitions in YAML, or definitions as in OpenAPI 2 or
// JSON Schema. The module is fetched from the Go module proxy, no program of this
// module is linked with it.
type source struct {
	module, version string
	sum             string // as in go.sum
	files           string // pattern, below the module's root
	lax             bool   // it calls fields required that its project's own examples leave out
}

// sources are searched in this order.
var sources = []source{
	{"k8s.io/kubernetes", "v1.37.2", "h1:A2VDEiObzkYqFTKhSsn0ZEb0RlLEXpHWj93gi2HqEwE=", "api/openapi-spec/swagger.json", false},
	// Complete where the CustomResourceDefinitions keep what they do not know.
	{"github.com/argoproj/argo-workflows/v3", "v3.7.0", "h1:TDijZztm6dLruB7yZLH+Ps4OJKRwu0YSAJ4/NvceON0=", "api/jsonschema/schema.json", false},
	{"github.com/argoproj/argo-events", "v1.9.6", "h1:tQTyUmMt0/4UI+9fbXrmK1/h9oalV7KBCC3YgPI7qz0=", "api/jsonschema/schema.json", true},
	{"github.com/argoproj/argo-cd/v3", "v3.5.7", "h1:Xm1BF+I5OgDKUG3SDK49vn2/Y5AMyaNVko+/JT08gj0=", "manifests/crds/*-crd.yaml", false},
	{"github.com/fluxcd/source-controller", "v1.9.6", "h1:nG534/bI6nVpyHra7ONAk6xDB3xPsVT+EOLHZHXPrrc=", "config/crd/bases/*.yaml", false},
	{"github.com/fluxcd/kustomize-controller", "v1.9.6", "h1:XB+G3A0mky0j5uVHZWv4oSlS2RvZBoNIUhstIvY0JKE=", "config/crd/bases/*.yaml", false},
}

// elsewhere are groups whose kinds are checked by other means. Those of Flux's image
// controllers, of which there are modules with types but without schemas, are
// decoded strictly into these types by the program in testdata/updaters, which also
// does what the policies of all three groups say.
var elsewhere = []string{"argocd-image-updater.argoproj.io", "image.toolkit.fluxcd.io", "kargo.akuity.io"}
