package promote

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseReference(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Reference
	}{
		{"python", Reference{"python", "", ""}},
		{"python:3.12-slim", Reference{"python", "3.12-slim", ""}},
		{"localhost:5000/a", Reference{"localhost:5000/a", "", ""}},
		{"[::1]:5000/a/b_c:v1@" + digest, Reference{"[::1]:5000/a/b_c", "v1", digest}},
		{"Registry.example.com/a@" + digest, Reference{"Registry.example.com/a", "", digest}},
	} {
		if got, err := ParseReference(tt.text); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v", tt.text, got, err)
		}
		if got := tt.want.String(); got != tt.text {
			t.Errorf("%s: written as %s", tt.text, got)
		}
	}
	for _, text := range []string{"", "App", "a b", "a:", "a@", "a@sha256:12", "https://a/b", "a//b", ":1", "a:1\n", "-a"} {
		if got, err := ParseReference(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestSame(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"python", "docker.io/library/python", true},
		{"index.docker.io/bitnami/redis", "bitnami/redis", true},
		{"ghcr.io/a/b", "ghcr.io/a/b", true},
		{"localhost/a", "docker.io/localhost/a", false},
		{"ghcr.io/python", "python", false},
	} {
		if got := same(tt.a, tt.b); got != tt.want {
			t.Errorf("%s and %s: got %t", tt.a, tt.b, got)
		}
	}
}

// TestEdit sets all uses in a text to one image.
func TestEdit(t *testing.T) {
	const (
		pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n"
		app = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec: {source: {kustomize: {images: "
	)
	for _, tt := range []struct {
		name, file, text string
		image            Reference
		want             string
	}{
		{"other repository", "values.yaml", "image: a/b:1 # x", Reference{"r.io/c", "2", digest}, "image: r.io/c:2@" + digest + " # x"},
		{"the same in other words", "values.yaml", "image: python:1", Reference{"docker.io/library/python", "2", digest}, "image: python:2@" + digest},
		{"no tag", "values.yaml", "image: a", Reference{"a", "", digest}, "image: a@" + digest},
		{"already", "values.yaml", "image:  'a:1@" + digest + "'", Reference{"a", "1", digest}, "image:  'a:1@" + digest + "'"},
		{"tag that would be a number", "values.yaml", "image: {repository: a, tag: 1.2, digest: ''}", Reference{"a", "1.20", digest}, `image: {repository: a, tag: "1.20", digest: '` + digest + `'}`},
		{"null", "values.yaml", "image:\n  repository: a\n  tag:\n  digest: ~ # x\n", Reference{"a", "1", digest}, "image:\n  repository: a\n  tag: \"1\"\n  digest: " + digest + " # x\n"},
		{"null in a flow mapping", "values.yaml", `image: {"repository": "a", "tag":, "digest":}`, Reference{"a", "v1", digest}, `image: {"repository": "a", "tag": v1, "digest": ` + digest + `}`},
		{"registry of its own", "values.yaml", "image: {registry: r.io, repository: a, tag: x}", Reference{"r.io/b/c", "x", digest}, "image: {registry: r.io, repository: b/c, tag: x@" + digest + "}"},
		{"into another registry", "values.yaml", "image: {registry: r.io, repository: a, tag: x}", Reference{"s.io/b/c", "x", digest}, "image: {registry: s.io, repository: b/c, tag: x@" + digest + "}"},
		{"to Docker Hub", "values.yaml", "image: {registry: r.io, repository: a, tag: x}", Reference{"b", "x", digest}, "image: {registry: docker.io, repository: library/b, tag: x@" + digest + "}"},
		{"registry without a value", "values.yaml", "image: {registry: '', repository: a, tag: x}", Reference{"r.io/a", "x", digest}, "image: {registry: '', repository: r.io/a, tag: x@" + digest + "}"},
		{"below a registry for all", "values.yaml", "global: {imageRegistry: r.io/m/}\nimage: {repository: a, tag: x}", Reference{"r.io/m/b", "x", digest}, "global: {imageRegistry: r.io/m/}\nimage: {repository: b, tag: x@" + digest + "}"},
		{"tag kept", "values.yaml", "image: {repository: a, tag: x}", Reference{"a", "", digest}, "image: {repository: a, tag: x@" + digest + "}"},
		{"tag in the repository", "values.yaml", "image: {repository: 'a:x'}", Reference{"a", "y", digest}, "image: {repository: 'a:y@" + digest + "'}"},
		{"hex digits alone", "values.yaml", "image: {repository: a, digest: " + strings.Repeat("1", 64) + "}", Reference{"a", "", digest}, "image: {repository: a, digest: " + digest[7:] + "}"},
		{"digest that would be a number", "values.yaml", "image: {repository: a, digest: " + strings.Repeat("a", 64) + "}", Reference{"a", "", "sha256:" + strings.Repeat("1", 64)}, `image: {repository: a, digest: "` + strings.Repeat("1", 64) + `"}`},
		{"new name", "kustomization.yaml", "images:\n- name: a", Reference{"b", "1", digest}, "images:\n- name: a\n  newName: b\n  newTag: \"1\"\n  digest: " + digest},
		{"new name in a flow mapping", "kustomization.yaml", `images: [{"name": "a"}]`, Reference{"b", "1", digest}, `images: [{"name": "a", "newName": "b", "newTag": "1", "digest": "` + digest + `"}]`},
		{"number as it is", "kustomization.yaml", "images:\n- name: a\n  newTag: 1\n  digest: " + digest, Reference{"a", "1", digest}, "images:\n- name: a\n  newTag: 1\n  digest: " + digest},
		{"new name in a string of kustomize", "app.yaml", app + "[a:1, 'b=c']}}}", Reference{"d", "1", digest}, app + "[a=d:1@" + digest + ", 'b=d:1@" + digest + "']}}}"},
		{"digest alone", "kustomization.yaml", "images:\n- name: a\n  digest: ''\n", Reference{"a", "1", digest}, "images:\n- name: a\n  digest: '" + digest + "'\n"},
		{"line breaks of the neighbours", "kustomization.yaml", "images:\r\n- name: a\r\n  newTag: x", Reference{"a", "y", digest}, "images:\r\n- name: a\r\n  newTag: y\r\n  digest: " + digest},
		{"line breaks of old machines", "kustomization.yaml", "images:\r- name: a\r  newTag: x # é\r", Reference{"a", "y", digest}, "images:\r- name: a\r  newTag: y # é\r  digest: " + digest + "\r"},
		{"tag and anchor", "deployment.yaml", pod + "  - image: !!str   &i \"a\"  # x", Reference{"a", "1", digest}, pod + "  - image: !!str   &i \"a:1@" + digest + "\"  # x"},
		{"wide characters", "deployment.yaml", pod + "  - {name: \"é😀\", image: a} # é", Reference{"a", "1", digest}, pod + "  - {name: \"é😀\", image: a:1@" + digest + "} # é"},
		{"rare line breaks", "deployment.yaml", "# a\u0085# b\n" + pod + "  - image: a", Reference{"a", "1", digest}, "# a\u0085# b\n" + pod + "  - image: a:1@" + digest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse(tt.file, []byte(tt.text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Uses) == 0 {
				t.Fatal("no use is found")
			}
			var changes []Change
			for _, u := range f.Uses {
				changes = append(changes, Change{Use: u, Image: tt.image})
			}
			got, err := f.Edit(changes)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestLauncher puts the launcher in front of the only command.
func TestLauncher(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - "
	for _, tt := range []struct{ name, file, text, launcher, want string }{
		{"flow", "pod.yaml", pod + "command: [a, b]", "opentelemetry-instrument", pod + "command: [opentelemetry-instrument, a, b]"},
		{"quoted", "pod.yaml", pod + `command: [ "a" ]`, "/opt/bin/opentelemetry-instrument", pod + `command: [ "/opt/bin/opentelemetry-instrument", "a" ]`},
		{"block", "pod.yaml", pod + "command:\n    -  'a' # x\n    - b", "opentelemetry-instrument", pod + "command:\n    -  'opentelemetry-instrument'\n    -  'a' # x\n    - b"},
		{"block in step with its key", "pod.yaml", pod + "command:\n    - a\n    name: x\n", "opentelemetry-instrument", pod + "command:\n    - opentelemetry-instrument\n    - a\n    name: x\n"},
		{"one of its strings is long", "pod.yaml", pod + "command:\n    - |\n      a\n    - b", "opentelemetry-instrument", pod + "command:\n    - opentelemetry-instrument\n    - |\n      a\n    - b"},
		{"anchored item", "pod.yaml", pod + "command: [&c a, *c]", "opentelemetry-instrument", pod + "command: [opentelemetry-instrument, &c a, *c]"},
		{"last line without a break", "pod.yaml", pod + "command:\r\n    - a", "opentelemetry-instrument", pod + "command:\r\n    - opentelemetry-instrument\r\n    - a"},
		{"by another path already", "pod.yaml", pod + "command: [/x/opentelemetry-instrument, a]", "opentelemetry-instrument", pod + "command: [/x/opentelemetry-instrument, a]"},
		{"in a shell already", "pod.yaml", pod + "command: [sh, -c, 'x; exec opentelemetry-instrument a']", "opentelemetry-instrument", pod + "command: [sh, -c, 'x; exec opentelemetry-instrument a']"},
		{"as an argument", "pod.yaml", pod + "command: [echo, no-opentelemetry-instrument]", "opentelemetry-instrument", pod + "command: [opentelemetry-instrument, echo, no-opentelemetry-instrument]"},
		{"string", "compose.yaml", "services: {a: {entrypoint: a 'b'}}", "opentelemetry-instrument", "services: {a: {entrypoint: opentelemetry-instrument a 'b'}}"},
		{"string with escapes", "compose.yaml", `services: {a: {entrypoint: "a \"b\""}}`, "opentelemetry-instrument", `services: {a: {entrypoint: "opentelemetry-instrument a \"b\""}}`},
		{"string of two lines", "compose.yaml", "services: {a: {entrypoint: a\n  b}}", "opentelemetry-instrument", "services: {a: {entrypoint: opentelemetry-instrument a\n  b}}"},
		{"empty string", "compose.yaml", "services: {a: {entrypoint: ''}}", "opentelemetry-instrument", "services: {a: {entrypoint: 'opentelemetry-instrument'}}"},
		{"empty list", "compose.yaml", "services: {a: {entrypoint: &e [ ]}}", "opentelemetry-instrument", "services: {a: {entrypoint: &e [opentelemetry-instrument ]}}"},
		{"none", "compose.yaml", "services: {a: {image: a, entrypoint: }}", "opentelemetry-instrument", "services: {a: {image: a, entrypoint: }}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse(tt.file, []byte(tt.text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Uses) != 1 {
				t.Fatalf("%d uses", len(f.Uses))
			}
			got, err := f.Edit([]Change{{Use: f.Uses[0], Launcher: tt.launcher}})
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestRefused: what cannot be edited safely is one line that says where and what
// to do, and no edit.
func TestRefused(t *testing.T) {
	const (
		pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - "
		app = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nspec: {source: {helm: {\n"
	)
	image := Reference{"r.io/a", "1", digest}
	for _, tt := range []struct {
		name, file, text string
		only             int // the number of the use to change, from 1; all if 0
		image            Reference
		want             string
	}{
		{"block scalar", "pod.yaml", pod + "image: >-\n      a:1\n", 0, image, "pod.yaml:5: it is written as a block scalar: write it in one line"},
		{"escapes", "pod.yaml", pod + `image: "a\x3a1"`, 0, image, "pod.yaml:5: it cannot be located in the file's text: write it in one line, without escapes"},
		{"script", "task.yaml", "apiVersion: tekton.dev/v1\nkind: Task\nspec:\n  steps:\n  - image: a\n    script: x", 0, image, "task.yaml:6: the script takes the place of the image's entry point"},
		{"string that is run in an unknown way", "values.yaml", "image: a\ncommand: a b", 0, image, "values.yaml:2: command is a string, of which it is not known how it is run: write it as a list"},
		{"item on the line below its dash", "pod.yaml", pod + "command:\n    -\n      a", 0, Reference{}, "pod.yaml:6: where its first item starts cannot be located"},
		{"no tag", "values.yaml", "image: {repository: a}", 0, image, "values.yaml:1: there is no tag to set: write a tag below the repository"},
		{"repository elsewhere", "values.yaml", "image: {tag: x}", 0, image, "values.yaml:1: the file does not say the repository"},
		{"repository in a comment", "values.yaml", "v: x # imgwrap:tag r.io/b", 0, image, "values.yaml:1: the repository cannot become r.io/a: it is not in this file"},
		{"outside the registry for all", "values.yaml", "global:\n  imageRegistry: s.io\nimage: {repository: a, tag: x}", 0, image, "values.yaml:2: imageRegistry puts s.io in front of every image, and r.io/a is not there"},
		{"tag unknown", "values.yaml", "image: {repository: r.io/a, tag: ''}", 0, Reference{"r.io/a", "", digest}, "has no tag to write in front of its digest"},
		{"template", "values.yaml", "image: 'a:{{ .x }}'", 0, image, `values.yaml:1: "a:{{ .x }}" is filled in by a template or a variable`},
		{"not an image", "values.yaml", "image: 'A B'", 0, image, `values.yaml:1: "A B" names no image`},
		{"YAML in a string", "app.yaml", app + `values: "image: a:1"}}}`, 0, image, "app.yaml:4: it holds YAML in a string that is no literal block: write it as a block with |"},
		{"encrypted", "values.yaml", "image: a:1\nsops:\n  mac: ENC[x]\n", 0, image, "values.yaml:3: the file is encrypted with sops, whose checksum covers it"},
		{"tag of another type", "pod.yaml", pod + "image: !env a", 0, image, "pod.yaml:5: it is no string"},
		{"shared with what stays", "compose.yaml", "services:\n  a: {image: &i a}\n  b: {image: *i}", 1, image, "compose.yaml:2: it is also services.b.image, through an alias"},
		{"shared, at the alias", "compose.yaml", "services:\n  a: {image: &i a}\n  b: {image: *i}", 2, image, "compose.yaml:2: it is also services.a.image, through an alias"},
		{"merged with what stays", "compose.yaml", "services:\n  a: &a\n    image: a\n  b:\n    <<: *a\n", 1, image, "compose.yaml:3: it is also services.b.image, through an alias"},
		{"shared with something else", "compose.yaml", "services:\n  a: {image: &i a, labels: [*i]}", 0, image, "compose.yaml:2: it is also services.a.labels[0], through an alias"},
		{"entry of kustomize that is merged", "kustomization.yaml", "x: &x {newTag: x}\nimages:\n- {name: r.io/a, <<: *x}", 0, image, "kustomization.yaml:3: digest cannot be added: a part of it is merged from elsewhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse(tt.file, []byte(tt.text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			var changes []Change
			for i, u := range f.Uses {
				if tt.only == 0 || tt.only == i+1 {
					changes = append(changes, Change{u, tt.image, launcher})
				}
			}
			got, err := f.Edit(changes)
			if err == nil {
				t.Fatalf("it became %q", got)
			}
			var e *Error
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || !errors.As(err, &e) || e.Remedy == "" {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestAllErrors(t *testing.T) {
	f, err := Parse("values.yaml", []byte("a: {image: {repository: a}}\nb: {image: {repository: b}}\nc: {image: c}\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var changes []Change
	for _, u := range f.Uses {
		changes = append(changes, Change{Use: u, Image: Reference{u.Image.Name, "1", digest}})
	}
	got, err := f.Edit(changes)
	if got != nil || err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWrongChanges(t *testing.T) {
	f, err := Parse("values.yaml", []byte("image: a\ncommand: [x]"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := Parse("values.yaml", []byte("image: a"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		change Change
		want   string
	}{
		{Change{Use: other.Uses[0], Image: Reference{"a", "1", digest}}, "a use of another file"},
		{Change{Use: f.Uses[0], Image: Reference{"a", "1", ""}}, "no image with its digest"},
		{Change{Use: f.Uses[0], Image: Reference{"a b", "1", digest}}, "no image with its digest"},
		{Change{Use: f.Uses[0], Image: Reference{"a:1", "", digest}}, "no image with its digest"},
		{Change{Use: f.Uses[0], Launcher: "x, y"}, "no path of a launcher"},
	} {
		if got, err := f.Edit([]Change{tt.change}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %q, %v, want %s", got, err, tt.want)
		}
	}
}

func TestNotYAML(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		template   bool
	}{
		{"template", "{{- if .Values.x }}\na: b\n{{- end }}\n", true},
		{"tab", "a:\n\tb: c\n", false},
		{"UTF-16", "a\x00:\x00 \x00b\x00", false},
		{"Latin-1", "a: \xe9\n", false},
		{"unknown anchor", "a: *b\n", false},
		{"binary", "\x00\x01\x02", false},
	} {
		_, err := Parse("x.yaml", []byte(tt.text), Options{})
		var not *NotYAMLError
		if !errors.As(err, &not) || not.Template != tt.template || not.File != "x.yaml" || errors.Unwrap(err) == nil ||
			!strings.HasPrefix(err.Error(), "x.yaml: it is ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	for name, want := range map[string]bool{"a/b.yaml": true, "b.yml": true, "x/Kustomization": true, "a.json": false, "values.yaml.gotmpl": false, "yaml": false} {
		if IsYAML(name) != want {
			t.Errorf("IsYAML(%q) is %t", name, !want)
		}
	}
}

// TestExpansion: aliases can make a small file endless.
func TestExpansion(t *testing.T) {
	laughs := "a0: &a0 [image]\n"
	for i := range 12 {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 9)+"x")
	}
	for name, text := range map[string]string{
		"laughs":        laughs,
		"cycle":         "a: &a {b: *a, image: x}\n",
		"merged cycle":  "a: &a {<<: *a, image: x}\n",
		"merged list":   "a: &a [{<<: *a}]\n",
		"nested deeply": strings.Repeat("a: {", 500) + strings.Repeat("}", 500),
		"key twice":     "image: a\nx: y\nimage: b\n",
	} {
		_, err := Parse("values.yaml", []byte(text), Options{})
		var e *Error
		if !errors.As(err, &e) || e.Line == 0 || e.Remedy == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestField(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Field
	}{
		{"spec.image", Field{"", []string{"spec", "image"}}},
		{"spec.images[*].name", Field{"", []string{"spec", "images", "[*", "name"}}},
		{"Ray:spec.a[0][*]", Field{"Ray", []string{"spec", "a", "[0", "[*"}}},
		{`spec.*["a.b/c"].image-name`, Field{"", []string{"spec", "*", "a.b/c", "image-name"}}},
	} {
		if got, err := ParseField(tt.text); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %q, %v", tt.text, got, err)
		}
	}
	for _, text := range []string{"", ".a", "a..b", "a[", "a[x]", "a b", "Kind:", `a["b]`, "a.", "[0]b"} {
		if got, err := ParseField(text); err == nil {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

func TestComments(t *testing.T) {
	for _, text := range []string{
		"a: b # imgwrap:imgae",
		"a: [b] # imgwrap:image",
		"a: {} # imgwrap:command",
		"a: {b: c} # imgwrap:image",
	} {
		_, err := Parse("x.yaml", []byte(text), Options{})
		if err == nil || !strings.Contains(err.Error(), "x.yaml:1: this value cannot be an imgwrap:") {
			t.Errorf("%s: got %v", text, err)
		}
	}
	f, err := Parse("x.yaml", []byte("a: b:1 # imgwrap:image\nc: {d: e:1} # nothing\n"), Options{})
	if err != nil || len(f.Uses) != 1 || f.Uses[0].Path != "a" {
		t.Errorf("got %v, %v", f, err)
	}
}

func TestValuesByOption(t *testing.T) {
	text := []byte("image: a:1\n")
	for values, want := range map[bool]int{false: 0, true: 1} {
		f, err := Parse("production.yaml", text, Options{Values: values})
		if err != nil || len(f.Uses) != want {
			t.Errorf("%t: got %v, %v", values, f, err)
		}
	}
}

func TestStarts(t *testing.T) {
	for _, tt := range []struct {
		command Command
		want    bool
	}{
		{Command{Args: []string{"/usr/bin/opentelemetry-instrument", "a"}}, true},
		{Command{Args: []string{"sh", "-c", "a && (opentelemetry-instrument b)"}}, true},
		{Command{Text: "opentelemetry-instrument a"}, true},
		{Command{Text: "a opentelemetry-instrumentation"}, false},
		{Command{Args: []string{}}, false},
	} {
		if got := tt.command.Starts(launcher); got != tt.want {
			t.Errorf("%+v: got %t", tt.command, got)
		}
	}
}

// TestVerify edits with nodes that claim to stand elsewhere, where the same text
// is: the comparison notices.
func TestVerify(t *testing.T) {
	text := "image: a:1\nimagx: a:1\ncommand: [a, b]\ncommanx: [a, b]\nx: [a, b]\n"
	for _, launch := range []string{"", launcher} {
		f, err := Parse("values.yaml", []byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		u := f.Uses[0]
		c := Change{Use: u, Image: Reference{"a", "2", digest}}
		u.parts.whole.node.Line++
		if launch != "" {
			c = Change{Use: u, Launcher: launch}
			u.command.node.Content[0].Line++
		}
		got, err := f.Edit([]Change{c})
		if err == nil || !strings.Contains(err.Error(), "it would change, too, if the image was set") {
			t.Errorf("it became %q, %v", got, err)
		}
	}
}
