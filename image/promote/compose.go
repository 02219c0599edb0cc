package promote

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// isCompose says whether a document without a kind is one of compose.
func isCompose(p place) bool {
	services := p.get("services").fields()
	return len(services) > 0 && !slices.ContainsFunc(services, func(s place) bool {
		return !s.get("image").exists() && !s.get("build").exists() && !s.get("extends").exists()
	})
}

// compose finds the services of a compose file.
func (f *finder) compose(p place) {
	f.within(Compose, f.object, func() {
		for _, service := range p.get("services").fields() {
			u := &Use{Container: service.key.Value, Env: env(service.get("environment"))}
			if image := service.get("image"); image.text() != "" {
				u.parts.whole = image
				if service.get("build").exists() {
					u.Problem = "compose builds it from the source beside it"
				}
			}
			// Unlike null, an empty one takes the image's entry point away.
			if e := service.get("entrypoint"); isCommand(e) || e.exists() && len(e.node.Content) == 0 &&
				(e.node.Kind == yaml.SequenceNode || e.isScalar() && e.node.Tag != "!!null") {
				u.command = e
			}
			f.add(u)
		}
	})
}
