package bulk

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var digest = "sha256:" + strings.Repeat("0123456789abcdef", 4)

// say is a list in few words.
func say(l *List) string {
	var b strings.Builder
	if l.Defaults != nil {
		fmt.Fprintf(&b, "%v\n", l.Defaults)
	}
	for _, e := range l.Entries {
		fmt.Fprintf(&b, "%d: %s%s", e.Line, e.Image, e.Repository)
		if e.Repository != "" {
			fmt.Fprintf(&b, " %s", e.Tags.key())
		}
		if e.Options != nil {
			fmt.Fprintf(&b, " %v", e.Options)
		}
		if e.Digest != "" {
			fmt.Fprintf(&b, " pinned, layers %v", e.Layers)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       string
	}{
		{"nothing", "", ""},
		{"comments", "# none today\n\n  # nor tomorrow\n", ""},
		{"lines", "\ufeffregistry.example.com:5000/app:1.4\r\n# comment\r\n\r\n  team/web:2.0   # comment\r\nnginx", "1: registry.example.com:5000/app:1.4\n4: team/web:2.0\n5: nginx\n"},
		{"repeated lines", "app:1\nweb:1\napp:1\n", "1: app:1\n2: web:1\n"},
		{"a line with a digest", "app:1@" + digest, "1: app:1@" + digest + " pinned, layers []\n"},
		{"transports", "oci:dir:tag\ndocker-archive:file.tar\n", "1: oci:dir:tag\n2: docker-archive:file.tar\n"},
		{"one image", "images: [app:1]", "1: app:1\n"},
		{"JSON", `{"images": ["app:1", {"image": "web:1", "native": false}]}`, "1: app:1\n1: web:1 map[native:[false]]\n"},
		{"no images", "images: []\n", ""},
		{"everything", `---
# our images
defaults:
  endpoint: http://collector:4318
  tag: '{{.Repository}}-otel:{{.Tag}}'
  platform: [linux/amd64, linux/arm64]
images:
  - registry.example.com/shop/cart:1.4
  - image: registry.example.com/shop/web:2.0
    service-name: web
    bytecode: true
    resource-attribute:
      - team=shop
  - repository: registry.example.com/team/*
    tags: {semver: ">=1.2 <2", newest: 3, match: '^v', except: '-rc'}
    release: 1.27.0
  - repository: registry.example.com/team/**/worker
  - repository: registry.example.com/team/*
    tags:
      match: latest
`, `map[endpoint:[http://collector:4318] platform:[linux/amd64 linux/arm64] tag:[{{.Repository}}-otel:{{.Tag}}]]
8: registry.example.com/shop/cart:1.4
9: registry.example.com/shop/web:2.0 map[bytecode:[true] resource-attribute:[team=shop] service-name:[web]]
14: registry.example.com/team/* semver >=1.2 <2 newest 3 match ^v except -rc map[release:[1.27.0]]
17: registry.example.com/team/**/worker 
18: registry.example.com/team/* match latest
`},
		{"aliases", "defaults: &d {endpoint: &e http://collector:4318}\nimages: [{image: app:1, endpoint: *e}]", "map[endpoint:[http://collector:4318]]\n2: app:1 map[endpoint:[http://collector:4318]]\n"},
		{"numbers as they are written", "images: [{image: app:1, a: 1.10, b: 0x10, c: 2024-01-02, d: yes}]", "1: app:1 map[a:[1.10] b:[0x10] c:[2024-01-02] d:[yes]]\n"},
		{"an image to two places", "images: [app:1, {image: app:1, tag: a}, {image: app:1, tag: b}]", "1: app:1\n1: app:1 map[tag:[a]]\n1: app:1 map[tag:[b]]\n"},
		{"resolved", "images:\n  - image: app:1@" + digest + "\n    layers: " + digest + "=123\n", "2: app:1@" + digest + " pinned, layers [{" + digest + " 123}]\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := Parse("list.yaml", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if got := say(l); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
			again(t, l)
		})
	}
}

// again writes a list and reads it again.
func again(t *testing.T, l *List) {
	t.Helper()
	content, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse("again.yaml", content)
	if err != nil {
		t.Fatalf("%v\n%s", err, content)
	}
	for _, l := range []*List{l, back} {
		l.file, l.lines = "", nil
		for i := range l.Entries {
			l.Entries[i].Line, l.Entries[i].lines = 0, nil
		}
	}
	if !reflect.DeepEqual(l, back) {
		t.Errorf("%+v became\n%s", l, content)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, problem, remedy string }{
		{"two words", "app:1\nweb:1 cart:1\n", `list:2: "web:1 cart:1" is not a reference`, "one reference per line"},
		{"YAML below lines", "app:1\nimages:\n  - web:1\n", `list:3: "- web:1" is not a reference`, "in YAML"},
		{"a pattern in a line", "app:1\nteam/*\n", `list:2: "team/*" is a pattern`, "repository: PATTERN"},
		{"a pattern as an image", "images:\n  - team/*\n", `list:2: "team/*" is a pattern`, "repository: PATTERN"},
		{"a bad digest", "app@sha256:123\n", `list:1: "sha256:123" is not a digest`, "64 hexadecimal digits"},
		{"Latin-1", "images: [\xe4]", "list: it is not UTF-8", "UTF-8"},
		{"broken YAML", "images:\n  - a: b: c\n", "list:2: mapping values are not allowed in this context", "YAML"},
		{"two documents", "images: []\n---\nimages: []\n", "list:2: there is a second document", "YAML"},
		{"a list at the top", "- app:1\n", "list:1: the list is a list, not a mapping", "the keys defaults and images"},
		{"an empty document", "---\n", "list:2: the list is empty, not a mapping", "the keys defaults and images"},
		{"unknown key", "image:\n  - app:1\n", `list:1: unknown key "image"`, "defaults and images"},
		{"a key that is a list", "? [a]\n: b\n", "list:1: the list has a key that is a list", "defaults and images"},
		{"a key that is there twice", "images: []\ndefaults: {}\nimages: []\n", `list:3: "images" is there twice, before in line 1`, "leave one"},
		{"defaults as a list", "defaults: [a]\nimages: []\n", "list:1: defaults is a list, not a mapping", "names of flags"},
		{"a default without a value", "defaults:\n  endpoint:\nimages: []\n", "list:2: a value of endpoint is empty", "write text"},
		{"a mapping as a value", "defaults:\n  tag: {a: b}\nimages: []\n", "list:2: a value of tag is a mapping", "write text"},
		{"no images", "images:\n", "list:1: images is empty, not a list", "one line per image"},
		{"images as text", "images: app:1\n", `list:1: images is "app:1", not a list`, "one line per image"},
		{"a number as an image", "images:\n  - 1.4\n", `list:2: an image is "1.4"`, "write a reference"},
		{"nothing as an image", "images:\n  -\n", "list:2: an image is empty", "write a reference"},
		{"a list as an image", "images:\n  - [app:1]\n", "list:2: an image is a list, not a mapping", "write a reference"},
		{"an image without a name", "images:\n  - endpoint: http://collector:4318\n", "list:2: an image has neither image nor repository", "write a reference"},
		{"an image with two", "images:\n  - image: app:1\n    repository: app\n", "list:3: an image has both", "leave one"},
		{"an image as a list", "images:\n  - image: [app:1]\n", "list:2: image is a list", "write a reference"},
		{"an option twice", "images:\n  - image: app:1\n    release: 1.27.0\n    release: 1.45.1\n", `list:4: "release" is there twice, before in line 3`, "leave one"},
		{"an image twice", "images:\n  - app:1\n  - image: app:1\n", "list:3: app:1 is there twice, before in line 2", "leave one"},
		{"an image twice with an option", "images:\n  - image: app:1\n    tag: a\n  - app:1\n  - image: app:1\n    tag: a\n", "list:5: app:1 is there twice, before in line 2", "leave one"},
		{"a repository twice", "images:\n  - repository: app\n    tags: {match: a}\n  - repository: app\n    tags: {match: b}\n  - repository: app\n    tags: {match: a}\n", "list:6: app is there twice, before in line 2", "leave one"},
		{"tags of an image", "images:\n  - image: app:1\n    tags: {newest: 3}\n", "list:3: tags are chosen of an image", "repository:"},
		{"a tag of a repository", "images:\n  - repository: localhost:5000/app:1\n", `list:2: repository "localhost:5000/app:1" has a tag or a digest`, "image:"},
		{"a digest of a repository", "images:\n  - repository: app@" + digest, `list:2: repository "app@` + digest + `" has a tag or a digest`, "image:"},
		{"a pattern of hosts", "images:\n  - repository: '*.example.com/app'\n", `list:2: "*.example.com/app" is no repository`, "[HOST/]NAME"},
		{"upper case", "images:\n  - repository: registry.example.com/Team/*\n", `list:2: "registry.example.com/Team/*" is no repository`, "lower case"},
		{"** in a component", "images:\n  - repository: team/a**\n", `list:2: "team/a**" is no repository`, "**"},
		{"an empty component", "images:\n  - repository: team//app\n", `list:2: "team//app" is no repository`, "[HOST/]NAME"},
		{"only a host", "images:\n  - repository: registry.example.com/\n", `list:2: "registry.example.com/" is no repository`, "[HOST/]NAME"},
		{"tags as text", "images:\n  - repository: app\n    tags: '>=1.2'\n", `list:3: tags is ">=1.2", not a mapping`, "semver:"},
		{"unknown key of tags", "images:\n  - repository: app\n    tags:\n      semver: '1'\n      latest: 3\n", `list:5: unknown key "latest" of tags`, "semver:"},
		{"a list of constraints", "images:\n  - repository: app\n    tags: {semver: ['1']}\n", "list:3: semver is a list", "semver:"},
		{"a bad constraint", "images:\n  - repository: app\n    tags: {semver: 'about 1.4'}\n", `list:3: semver is "about 1.4": improper constraint`, "bounds of versions"},
		{"an empty constraint", "images:\n  - repository: app\n    tags: {semver: ''}\n", `list:3: semver is "": it is empty`, "bounds of versions"},
		{"a bad number", "images:\n  - repository: app\n    tags: {newest: all}\n", `list:3: newest is "all": invalid syntax`, "how many"},
		{"none", "images:\n  - repository: app\n    tags: {newest: 0}\n", `list:3: newest is "0": it is not positive`, "how many"},
		{"a bad expression", "images:\n  - repository: app\n    tags: {match: '^(v'}\n", `list:3: match is "^(v": error parsing regexp: missing closing ): `, "regular expression"},
		{"another bad expression", "images:\n  - repository: app\n    tags: {except: '*'}\n", `list:3: except is "*": error parsing regexp`, "regular expression"},
		{"layers of a tag", "images:\n  - image: app:1\n    layers: ''\n", "list:3: an image without a digest has layers", "NAME:TAG@DIGEST"},
		{"layers of a repository", "images:\n  - repository: app\n    layers: ''\n", "list:3: a repository has layers", "image:"},
		{"layers as a list", "images:\n  - image: app@" + digest + "\n    layers: [a]\n", "list:3: layers is a list, not text", "--list"},
		{"a layer without a digest", "images:\n  - image: app@" + digest + "\n    layers: =1\n", `list:3: "=1" is not a layer`, "--list"},
		{"a layer without a size", "images:\n  - image: app@" + digest + "\n    layers: " + digest + "\n", `list:3: "` + digest + `" is not a layer`, "--list"},
		{"a layer of a negative size", "images:\n  - image: app@" + digest + "\n    layers: " + digest + "=-1\n", `list:3: "` + digest + `=-1" is not a layer`, "--list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("list", []byte(tt.text))
			var e *Error
			if !errors.As(err, &e) || !strings.HasPrefix(e.Error(), tt.problem) || !strings.Contains(e.Hint(), tt.remedy) || strings.Contains(e.Error(), "\n") {
				t.Errorf("got %v, want %s", err, tt.problem)
			}
		})
	}
}

type hinted struct{ error }

func (hinted) Hint() string { return "leave it out" }

func TestCheckOptions(t *testing.T) {
	l, err := Parse("list", []byte("defaults:\n  tag: a\n  jobs: 3\nimages:\n  - app:1\n  - image: web:1\n    release: x\n    platform: [a, b]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	check := func(bad string) error {
		return l.CheckOptions(func(name string, values []string) error {
			got = append(got, fmt.Sprint(name, values))
			if name == bad {
				return hinted{errors.New("no flag " + name)}
			}
			return nil
		})
	}
	if err := check(""); err != nil {
		t.Error(err)
	}
	if want := "[tag[a] jobs[3] release[x] platform[a b]]"; fmt.Sprint(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for bad, want := range map[string]string{"jobs": "list:3: no flag jobs", "platform": "list:8: no flag platform"} {
		var e *Error
		if err := check(bad); !errors.As(err, &e) || e.Error() != want || e.Hint() != "leave it out" {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// FuzzParse: whatever is read is a list that is written and read again as it was,
// or one line that says why not.
func FuzzParse(f *testing.F) {
	source, err := os.ReadFile("parse_test.go")
	if err != nil {
		f.Fatal(err)
	}
	for quoted := range strings.SplitSeq(string(source), "`") {
		f.Add([]byte(quoted))
	}
	for _, text := range []string{
		"app:1\n# comment\nweb:1@" + digest,
		"defaults: &d {endpoint: &e x}\nimages: [{image: app:1, endpoint: *e}, *e]",
		"images:\n  - image: app:1@" + digest + "\n    layers: " + digest + "=123\n",
		"images:\n  - repository: team/**\n    tags: {semver: '>=1.2 <2 || ~3', newest: 3}\n",
		"images: [{image: a, ? [b] : c}]", "images: &a [*a]", "? x\n:", "--- |\n x",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		l, err := Parse("list", content)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Remedy == "" || strings.ContainsAny(e.Error(), "\r\n") {
				t.Fatalf("%q", err)
			}
			return
		}
		again(t, l)
	})
}
