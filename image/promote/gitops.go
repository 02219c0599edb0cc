package promote

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// kustomization finds what a file of kustomize puts into manifests.
func (f *finder) kustomization(p place) {
	f.Resources = append(f.Resources, resources(p)...)
	if f.Resources == nil {
		f.Resources = []string{}
	}
	f.within(Kustomization, f.object, func() {
		f.replacements(p.get("images"))
		f.patches(p.get("patches"))
		f.patches(p.get("patchesJson6902"))
		for _, patch := range p.get("patchesStrategicMerge").items() {
			f.inner(patch, f.inline)
		}
		for _, chart := range p.get("helmCharts").items() {
			f.values(chart.get("valuesInline"))
		}
	})
}

// patches finds the images in patches that are written where they are applied.
func (f *finder) patches(p place) {
	for _, patch := range p.items() {
		f.inner(patch.get("patch"), f.inline)
	}
}

func (f *finder) inline(p place) {
	switch {
	case p.node.Kind == yaml.SequenceNode:
		f.patch(p)
	case p.get("kind").text() != "":
		f.kubernetes(p)
	}
}

// replacements finds the entries of kustomize's images.
func (f *finder) replacements(p place) {
	f.within(Kustomization, f.object, func() {
		for _, entry := range p.items() {
			if name := entry.scalar("name"); name.text() != "" {
				f.add(&Use{Replaces: name.text(), parts: parts{
					mapping: entry, replaced: name,
					name: entry.scalar("newName"), tag: entry.scalar("newTag"), digest: entry.scalar("digest"),
				}})
			}
		}
	})
}

// application finds the images in the spec of an Argo CD Application.
func (f *finder) application(p place) {
	for _, source := range append(p.get("sources").items(), p.get("source")) {
		helm := source.get("helm")
		f.values(helm.get("valuesObject"))
		f.inner(helm.get("values"), f.values)
		f.parameters(helm.get("parameters"))
		f.within(Kustomization, f.object, func() {
			for _, image := range source.get("kustomize", "images").items() {
				if !image.isScalar() {
					continue
				}
				// As kustomize edit set image takes it, name=reference or a reference.
				name, _, renamed := strings.Cut(image.text(), "=")
				u := &Use{Replaces: name, parts: parts{whole: image}}
				if renamed {
					u.parts.prefix = name + "="
				} else if r, err := ParseReference(name); err == nil {
					u.Replaces, u.parts.replaces = r.Name, r.Name
				}
				f.add(u)
			}
		})
		f.patches(source.get("kustomize", "patches"))
	}
}

// parameters finds the images in parameters of Helm, whose names are paths.
func (f *finder) parameters(p place) {
	uses := map[string]*Use{}
	var order []*Use
	for _, parameter := range p.items() {
		name, value := parameter.get("name").text(), parameter.get("value")
		if !value.isScalar() {
			continue
		}
		image, key := name, ""
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			image, key = name[:i], name[i+1:]
		}
		switch {
		case imageKey.MatchString(name[strings.LastIndexByte(name, '.')+1:]):
			image = name
		case !imageKey.MatchString(image[strings.LastIndexByte(image, '.')+1:]):
			continue
		}
		u := uses[image]
		if u == nil {
			u = &Use{}
			uses[image] = u
			order = append(order, u)
		}
		switch {
		case image == name:
			u.parts.whole = value
		case key == "registry":
			u.parts.registry = value
		case key == "repository":
			u.parts.name = value
		case key == "tag":
			u.parts.tag = value
		case key == "digest":
			u.parts.digest = value
		}
	}
	f.within(HelmValues, f.object, func() {
		for _, u := range order {
			f.add(u)
		}
	})
}
