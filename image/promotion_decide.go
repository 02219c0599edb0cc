package image

import (
	"fmt"

	"github.com/imgwrap/imgwrap/image/promote"
	"github.com/imgwrap/imgwrap/layer/bundle"
)

// An outcome is what became of an image, as far as manifests depend on it.
type outcome struct {
	image    promote.Reference // that they are to name; zero to leave what they name
	launcher string            // that commands need in front, "" if none
	env      map[string]string // variables that wrapping set
}

// wrapped says whether the image is wrapped, or will be.
func (o *outcome) wrapped() bool { return o != nil && o.image != promote.Reference{} }

// A decision is what changes in manifests.
type decision struct {
	changes  map[*manifest][]promote.Change
	warnings []string
}

func (d *decision) warn(u *promote.Use, line int, format string, args ...any) {
	d.warnings = append(d.warnings, fmt.Sprintf("%s:%d: ", u.File, line)+fmt.Sprintf(format, args...))
}

// decide decides what changes, given what became of the images that uses name.
func (m *manifests) decide(became map[*promote.Use]*outcome) *decision {
	d := &decision{changes: map[*manifest][]promote.Change{}}
	for _, f := range m.files {
		for _, u := range f.Uses {
			ends := m.ends(f, u)
			c := promote.Change{Use: u}
			if u.Form == "" {
				ends = m.partners(f, u)
			} else {
				c.Image = m.setImage(d, f, u, ends, became)
			}
			if u.Command != nil {
				c.Launcher = d.launcher(f, u, ends, became)
			}
			if c.Image != (promote.Reference{}) || c.Launcher != "" {
				d.changes[f] = append(d.changes[f], c)
			}
			for _, e := range ends {
				d.contradictions(u, became[e.use])
			}
		}
	}
	return d
}

// setImage is what a use is to name, the zero value if it stays.
func (m *manifests) setImage(d *decision, f *manifest, u *promote.Use, ends []end, became map[*promote.Use]*outcome) promote.Reference {
	own, mixed := own(u, ends)
	_, known := f.image(u)
	switch {
	case !own && !mixed:
		return promote.Reference{} // kustomizations put others in its place
	case mixed:
		for _, e := range ends {
			if e.use == u {
				d.warn(u, u.Line, "%s is taken as it is by %s, while others replace it: name it in the images of that", u.Image, e.root.Name)
			}
		}
		return promote.Reference{}
	case !known && !f.outside && !became[u].wrapped():
		d.warn(u, u.Line, "%s is left alone: %s", u.Path, u.Problem)
		return promote.Reference{}
	case f.outside:
		if known && !m.asIs[u] {
			d.warn(u, u.Line, "%s is used by %s and outside of what is promoted: name it in the images of that, or promote this file, too", u.Image, ends[0].root.Name)
		}
		return promote.Reference{}
	case !became[u].wrapped():
		return promote.Reference{}
	}
	return became[u].image
}

// launcher is what a command gets in front, "" if it stays.
func (d *decision) launcher(f *manifest, u *promote.Use, ends []end, became map[*promote.Use]*outcome) string {
	const around = "promote it with all that use it, or wrap with --activate entrypoint,environment"
	launchers := map[string]bool{}
	wrapped := 0
	for _, e := range ends {
		if o := became[e.use]; o.wrapped() {
			launchers[o.launcher] = true
			wrapped++
		}
	}
	var launcher string
	for l := range launchers {
		launcher = max(launcher, l)
	}
	c := u.Command
	switch {
	case len(ends) == 0:
		if !c.Starts(bundle.Command) {
			d.warn(u, c.Line, "%s of %s: no manifest says which image it runs in: if that is wrapped, start it with %s in front", c.Field, u.Of(), bundle.Command)
		}
	case launcher == "" || c.Starts(launcher):
	case f.outside:
		d.warn(u, c.Line, "%s of %s keeps the wrapped image from being instrumented, and is outside of what is promoted: %s", c.Field, u.Of(), around)
	case wrapped < len(ends) || len(launchers) > 1:
		d.warn(u, c.Line, "%s of %s keeps the wrapped image from being instrumented, and not all that use it have that image: %s", c.Field, u.Of(), around)
	case c.Field == "script" || c.Args == nil && u.Kind != promote.Compose:
		d.warn(u, c.Line, "%s of %s keeps the wrapped image from being instrumented: start its program with %s in front, or wrap with --activate entrypoint,environment", c.Field, u.Of(), launcher)
	default:
		return launcher
	}
	return ""
}

// contradictions warns of variables that take the place of those that wrapping
// set.
func (d *decision) contradictions(u *promote.Use, o *outcome) {
	if !o.wrapped() {
		return
	}
	for _, v := range u.Env {
		if set, ok := o.env[v.Name]; ok && v.Literal && v.Value != set {
			d.warn(u, v.Line, "%s is %q here and %q in the wrapped image: what is here counts", v.Name, v.Value, set)
		}
	}
}

// pending says what changes make different.
func (f *manifest) pending(changes []promote.Change) []pending {
	var all []pending
	for _, c := range changes {
		u := c.Use
		if c.Image != (promote.Reference{}) && (c.Image.Digest != u.Image.Digest || c.Image.Tag != u.Image.Tag && u.Image.Tag != "") {
			all = append(all, pending{fmt.Sprintf("%s:%d", f.Name, u.Line), fmt.Sprintf("%s is not %s", u.Image, c.Image)})
		}
		if c.Launcher != "" && u.Command != nil && !u.Command.Starts(c.Launcher) {
			all = append(all, pending{fmt.Sprintf("%s:%d", f.Name, u.Command.Line), u.Command.Field + " does not start " + c.Launcher})
		}
	}
	if len(all) == 0 {
		all = append(all, pending{f.Name, "it does not name the wrapped images"})
	}
	return all
}
