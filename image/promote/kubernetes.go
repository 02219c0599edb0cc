package promote

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kubernetes finds the images of an object.
func (f *finder) kubernetes(p place) {
	group, _, _ := strings.Cut(p.get("apiVersion").text(), "/")
	kind := p.get("kind").text()
	object := kind
	if name := p.get("metadata", "name").text(); name != "" {
		object += "/" + name
	}
	f.within(Kubernetes, object, func() {
		switch group + " " + kind {
		case "apiextensions.k8s.io CustomResourceDefinition": // whose schemas have examples
			return
		case "kustomize.config.k8s.io Kustomization", "kustomize.config.k8s.io Component":
			f.kustomization(p)
			return
		case "kustomize.toolkit.fluxcd.io Kustomization":
			f.replacements(p.get("spec", "images"))
			f.patches(p.get("spec", "patches"))
			return
		case "helm.toolkit.fluxcd.io HelmRelease":
			f.values(p.get("spec", "values"))
			for _, r := range p.get("spec", "postRenderers").items() {
				f.replacements(r.get("kustomize", "images"))
				f.patches(r.get("kustomize", "patches"))
			}
			return
		case "helm.cattle.io HelmChart", "helm.cattle.io HelmChartConfig":
			f.inner(p.get("spec", "valuesContent"), f.values)
			return
		case "argoproj.io Application":
			f.application(p.get("spec"))
			return
		case "argoproj.io ApplicationSet":
			f.application(p.get("spec", "template", "spec"))
			return
		case "tekton.dev StepAction":
			f.container(p.get("spec"))
		}
		f.walk(p, group)
		for _, field := range f.opts.Fields {
			if field.kind == "" || field.kind == kind {
				p.each(field.steps, place{}, f.field)
			}
		}
	})
}

// walk finds the containers in an object, and the objects in it.
func (f *finder) walk(p place, group string) {
	for _, item := range p.items() {
		f.descend(item, group)
	}
	for _, v := range p.fields() {
		isList := v.node.Kind == yaml.SequenceNode
		switch key := v.key.Value; {
		case isList && (key == "containers" || key == "initContainers" || key == "ephemeralContainers"),
			isList && group == "tekton.dev" && (key == "steps" || key == "sidecars"),
			isList && group == "argoproj.io" && key == "sidecars":
			for _, item := range v.items() {
				f.container(item)
			}
		case group == "tekton.dev" && key == "stepTemplate",
			group == "argoproj.io" && (key == "container" || key == "script"):
			f.container(v)
		case group == "argoproj.io" && key == "manifest":
			f.inner(v, f.inline)
		default:
			f.descend(v, group)
		}
	}
}

func (f *finder) descend(p place, group string) {
	if p.get("apiVersion").text() != "" && p.get("kind").text() != "" && p.get("metadata").exists() {
		f.kubernetes(p)
		return
	}
	f.walk(p, group)
}

// container adds one with the fields of core/v1 Container. In patches they may be
// there in part.
func (f *finder) container(p place) {
	u := &Use{Container: p.get("name").text(), Env: env(p.get("env"))}
	image, command, script := p.get("image"), p.get("command"), p.get("script")
	switch {
	case image.isScalar() && image.text() != "":
		u.parts.whole = image
	case image.isMapping():
		// Unquoted, the action of a template is a mapping.
		u.parts.whole = image
		u.Problem = "it is filled in by a template or is no string"
	}
	switch {
	case isCommand(command):
		u.command = command
	case script.text() != "":
		u.command = script
	}
	f.add(u)
}

// field adds an image that an option points at.
func (f *finder) field(p, in place) {
	u := &Use{Container: in.get("name").text(), Env: env(in.get("env"))}
	if c := in.get("command"); isCommand(c) {
		u.command = c
	}
	switch {
	case p.isScalar() && p.text() != "":
		u.parts.whole = p
	case p.isMapping():
		var ok bool
		if u.parts, ok = inMapping(p, place{}, imageKeys); !ok {
			return
		}
	default:
		return
	}
	f.add(u)
}

var imagePointer = regexp.MustCompile(`/(?:containers|initContainers|ephemeralContainers)/[^/]+/image$`)

// patch finds the images that a JSON patch (RFC 6902) sets.
func (f *finder) patch(p place) {
	f.within(Kubernetes, f.object, func() {
		for _, operation := range p.items() {
			op, value := operation.get("op").text(), operation.get("value")
			if (op == "replace" || op == "add") && value.text() != "" && imagePointer.MatchString(operation.get("path").text()) {
				f.add(&Use{parts: parts{whole: value}})
			}
		}
	})
}
