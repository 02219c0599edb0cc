package promote

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// An event is a step through a document, so that two can be compared without
// knowing which value was to change.
type event struct {
	kind               yaml.Kind // 0 at the end of a collection
	tag, anchor, value string
}

func events(n *yaml.Node, all []event) []event {
	all = append(all, event{n.Kind, n.Tag, n.Anchor, n.Value})
	for _, c := range n.Content {
		all = events(c, all)
	}
	if n.Kind != yaml.ScalarNode && n.Kind != yaml.AliasNode {
		all = append(all, event{})
	}
	return all
}

// unchanged says whether all events are the same but for what changes ask for:
// values that may appear, in the place of others or new.
func unchanged(was, is []event, values, keys map[string]bool) bool {
	for len(was) > 0 && len(is) > 0 {
		old, now := was[0], is[0]
		scalars := old.kind == yaml.ScalarNode && now.kind == yaml.ScalarNode && old.anchor == now.anchor
		switch {
		case now.value == launcher && old != now:
			return old.value == "" && scalars && unchanged(was[1:], is[1:], values, keys) || unchanged(was, is[1:], values, keys)
		case old == now:
		case keys[now.value] && len(is) > 1 && values[is[1].value]:
			is = is[2:]
			continue
		case scalars && (values[now.value] || now.value == launcher+" "+old.value):
		case scalars && inner(old.value, now.value, values, keys):
		default:
			return false
		}
		was, is = was[1:], is[1:]
	}
	return len(was) == 0 && !slices.ContainsFunc(is, func(e event) bool { return e.value != launcher })
}

// inner says whether two strings hold YAML that is unchanged.
func inner(old, now string, values, keys map[string]bool) bool {
	was, errWas := decode([]byte(old))
	is, errIs := decode([]byte(now))
	if errWas != nil || errIs != nil || len(was) != len(is) {
		return false
	}
	for i := range was {
		if was[i].Content[0].Kind == yaml.ScalarNode || !unchanged(events(was[i], nil), events(is[i], nil), values, keys) {
			return false
		}
	}
	return true
}

// FuzzEdit sets every use in a text, one by one and together: what is not asked
// for stays, and the second time nothing changes.
func FuzzEdit(f *testing.F) {
	names := []string{"deployment.yaml", "values.yaml", "compose.yaml", "kustomization.yaml"}
	for _, text := range []string{
		"image: a:1",
		"image: 'a:1'\r\ncommand: [\"x\"]\r\n",
		"\ufeffimage: {repository: a, tag: 1, digest: }",
		"services: {a: {image: &i a:1, entrypoint: &e [*i]}, b: {image: *i, entrypoint: *e}}",
		"x: &x\n  image: a:1\n  entrypoint:\n  - x\nservices:\n  a: {<<: *x}\n  b:\n    <<: [*x, {image: b}]\n",
		"services:\n  a:\n    image: a # é\n    entrypoint: x 'y'\n  b: {image: \"b\", entrypoint: \"\"}\n",
		"apiVersion: v1\nkind: P\nspec:\n  containers:\n  - image: a\n    command:\n    - &c x\n    - *c\n",
		"apiVersion: v1\nkind: P\nspec: {a: {image: a, command: [ x ]}}\n---\n# é\nb: &b !!str c\n",
		"images:\n- name: a\n  newTag: 1\n- {name: b, newName: 'c'}\n- \"name\": d # d\n",
		"images: [{name: a, digest: \"\"}]\nhelmCharts:\n- valuesInline: {image: a:1}\npatches:\n- patch: |\n    kind: P\n    apiVersion: v1\n    containers: [{image: a}]\n",
		"patches:\n- patch: |2-\n\n     - op: add\n       path: /containers/0/image\n       value: a:1",
		"global: {imageRegistry: r.io}\nimage:\n  registry: d.io\n  repository: a/b\n  tag:\n  digest: ~\n",
		"a: b:1 # imgwrap:image\nc:\n- d: 1 # imgwrap:tag x/y\n  e: [f] # imgwrap:command\n",
		"apiVersion: argoproj.io/v1\nkind: Application\nspec: {source: {helm: {parameters: [{name: image.tag, value: 1}, {name: image.repository, value: a}]}, kustomize: {images: [a=b:1, c:2]}}}",
		"apiVersion: argoproj.io/v1\nkind: Application\nspec:\n  source:\n    helm:\n      values: |\n        a:\n          image: a:1\n          command:\n          - b\n",
	} {
		for how := range byte(8) {
			f.Add([]byte(text), how)
		}
	}
	err := fsWalk(func(name string) error {
		text, err := os.ReadFile(name)
		kind := 0
		switch {
		case strings.Contains(name, "/helm/"):
			kind = 1
		case strings.Contains(name, "/compose/"):
			kind = 2
		}
		f.Add(text, byte(kind))
		f.Add(text, byte(kind+4))
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	field, err := ParseField("spec.*.image")
	if err != nil {
		f.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	f.Fuzz(func(t *testing.T, text []byte, how byte) {
		name := names[how%4]
		opts := Options{Fields: []Field{field}}
		file, err := Parse(name, text, opts)
		if err != nil {
			return
		}
		values := map[string]bool{digest: true, digest[7:]: true}
		want := func(file *File) (changes []Change) {
			for _, u := range file.Uses {
				r := Reference{"registry.example.com/a/b", "1.0", digest}
				if how&4 != 0 && u.Image.Name != "" {
					r.Name = u.Image.Name
				}
				if _, err := ParseReference(r.String()); err != nil {
					continue
				}
				registry, rest := split(r.Name)
				for _, v := range []string{r.Name, registry, rest, r.String(), u.Image.Name, r.Tag, r.Tag + "@" + digest, u.parts.prefix + r.String(), u.Replaces + "=" + r.String(), u.parts.prefix + u.Image.Name + ":1.0@" + digest,
					strings.TrimPrefix(r.Name, strings.TrimSuffix(u.parts.prefixed(), "/")+"/")} {
					values[v] = true
				}
				if c, rest, ok := strings.Cut(canonical(r.Name), "/"); ok {
					values[c], values[rest] = true, true
				}
				changes = append(changes, Change{u, r, launcher})
			}
			return changes
		}
		delete(values, "")
		keys := map[string]bool{"newName": true, "newTag": true, "digest": true}
		changes := want(file)
		check := func(changes []Change) {
			edited, err := file.Edit(changes)
			if err != nil {
				return
			}
			was, errWas := decode(text)
			is, errIs := decode(edited)
			if errWas != nil || errIs != nil || len(was) != len(is) {
				t.Fatalf("%q became %q: %v", text, edited, errIs)
			}
			for i := range was {
				if !unchanged(events(was[i], nil), events(is[i], nil), values, keys) {
					t.Fatalf("%q became %q", text, edited)
				}
			}
			again, err := Parse(name, edited, opts)
			if err != nil {
				t.Fatalf("%q became %q: %v", text, edited, err)
			}
			var repeated []Change
			for _, c := range changes {
				for _, u := range again.Uses {
					if u.Document == c.Use.Document && u.Path == c.Use.Path {
						repeated = append(repeated, Change{u, c.Image, c.Launcher})
						break
					}
				}
			}
			if len(repeated) != len(changes) {
				t.Fatalf("%q became %q, with other uses", text, edited)
			}
			if twice, err := again.Edit(repeated); err != nil || !bytes.Equal(twice, edited) {
				t.Fatalf("%q became %q, and then %q, %v", text, edited, twice, err)
			}
		}
		check(nil)
		for i := range changes[:min(len(changes), 4)] {
			check(changes[i : i+1])
		}
		check(changes)
	})
}
