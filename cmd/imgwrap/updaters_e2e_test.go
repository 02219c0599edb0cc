//go:build e2e

package main_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// updaterFiles are the examples that say which images updaters take.
var updaterFiles = []string{
	"../../docs/examples/argocd-image-updater/annotations.yaml",
	"../../docs/examples/argocd-image-updater/application.yaml",
	"../../docs/examples/argocd-image-updater/image-updater.yaml",
	"../../docs/examples/flux/automation.yaml",
	"../../docs/examples/flux/images.yaml",
	"../../docs/examples/kargo/warehouse.yaml",
}

// TestE2EUpdaters wraps the images of a shop under the names that
// docs/image-updaters.md gives them. The policies of the examples take the
// newest wrapped ones, and what they write builds.
func TestE2EUpdaters(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	base, err := bed.Image(t.Context(), "bullseye-flask")
	if err != nil {
		t.Fatal(err)
	}
	const project = "updaters" // in the registry
	addr := bed.Registry() + "/" + project
	config, err := base.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	// push pushes a source that is as old as that. Its label is what Kargo has
	// count, for the source and the wrapped image alike.
	push := func(ref string, created time.Time) {
		t.Helper()
		config := config.Config.DeepCopy()
		config.Labels = map[string]string{"org.opencontainers.image.created": created.Add(time.Minute).Format(time.RFC3339)}
		img, err := mutate.Config(base, *config)
		if err != nil {
			t.Fatal(err)
		}
		img, err = mutate.CreatedAt(img, v1.Time{Time: created})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bed.PushImage(t.Context(), img, project+"/"+ref); err != nil {
			t.Fatal(err)
		}
	}
	// wrap returns the digest.
	wrap := func(ref string, args ...string) string {
		t.Helper()
		out := w.run(t, append([]string{addr + "/" + ref}, args...)...)
		_, digest, _ := strings.Cut(strings.TrimSpace(out), "@")
		return digest
	}

	day := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	wrapped := map[string]string{} // what is to be taken
	// The newest comes first: when things are pushed decides nothing.
	for i, version := range []string{"2.0.0", "2.0.0-rc.1", "1.9.1", "1.10.0", "1.4.0"} {
		for _, image := range []struct{ name, tag string }{
			{"cart", "{{.Repository}}-otel:{{.Tag}}"},
			{"web", "{{.Tag}}-otel"},
		} {
			ref := "shop/" + image.name + ":" + version
			push(ref, day.AddDate(0, 0, -i))
			digest := wrap(ref, "--tag="+image.tag)
			if image.name == "cart" && version == "1.10.0" {
				wrapped["cart"] = "registry.example.com/shop/cart-otel:1.10.0@" + digest
			}
		}
	}
	// Wrapped again, by other options.
	wrapped["web"] = "registry.example.com/shop/web:1.10.0-otel.2@" +
		wrap("shop/web:1.10.0", "--tag={{.Tag}}-otel.2", "--service-name=shop-web")
	for i, commit := range []string{"3f2a9c1", "f04be77", "9c41d07"} {
		built := day.AddDate(0, 0, -i)
		tag := "main-" + commit + "-" + strconv.FormatInt(built.Unix(), 10)
		push("shop/jobs:"+tag, built)
		digest := wrap("shop/jobs:" + tag)
		if i == 0 {
			wrapped["jobs"] = "registry.example.com/shop/jobs:" + tag + "-otel@" + digest
		}
	}
	push("shop/search:main", day)
	wrapped["search"] = "registry.example.com/shop/search:main-otel@" + wrap("shop/search:main")
	// The source's tag is the last in the alphabet.
	push("shop/mail:main", day)
	wrap("shop/mail:main", "--tag=instrumented")
	// Pushed, and not wrapped yet.
	next := day.AddDate(0, 0, 1)
	push("shop/cart:1.11.0", next)
	push("shop/web:1.11.0", next)
	unwrapped := "main-a1b2c3d-" + strconv.FormatInt(next.Unix(), 10)
	push("shop/jobs:"+unwrapped, next)

	t.Run("policies", func(t *testing.T) {
		want := map[string]string{}
		for name, image := range wrapped {
			for _, policy := range []string{"Application/shop-annotated/", "ImageUpdater/shop-staging/", "ImagePolicy/", "Warehouse/shop/"} {
				want[policy+name] = image
			}
		}
		selected, err := bed.SelectImages(t.Context(), addr, updaterFiles...)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(selected, want) {
			t.Errorf("selected %q, want %q", selected, want)
		}
	})

	// What docs/image-updaters.md warns of, and what it says of those who do not
	// know about wrapped images.
	const releases = `^\d+\.\d+\.\d+-otel$`
	versions := func(constraint, allow string) string {
		return warehouse("repoURL: registry.example.com/shop/web, constraint: '" + constraint + "', allowTagsRegexes: ['" + allow + "']")
	}
	for _, tc := range []struct{ name, policy, want string }{
		{"pre-releases are left alone", versions("^1.0.0", ""), "web:1.11.0"},
		{"no constraint", warehouse("repoURL: registry.example.com/shop/web, allowTagsRegexes: ['" + releases + "']"), "web:2.0.0-otel"},
		{"wrapped pre-releases", versions("^2.0.0-0", "-otel$"), "web:2.0.0-rc.1-otel"},
		{"releases are above their pre-releases", versions("^1.0.0-0", ""), "web:1.11.0"},
		{"upper bound", versions(">=1.0.0-0 <2.0.0", releases), "web:2.0.0-otel"},
		{"upper bound with pre-releases", versions(">=1.0.0-0 <2.0.0-0", releases), "web:1.10.0-otel"},
		{"no filter by time", warehouse("repoURL: registry.example.com/shop/jobs, imageSelectionStrategy: NewestBuild"), "jobs:" + unwrapped},
		{"of one time", warehouse("repoURL: registry.example.com/shop/search, imageSelectionStrategy: NewestBuild"), "search:main-otel"},
		{"newer than its source", imageUpdater("imageName: registry.example.com/shop/mail, commonUpdateSettings: {updateStrategy: newest-build}"), "mail:instrumented"},
		{"extract", imagePolicy(`filterTags: {pattern: '^(?P<version>\d+\.\d+\.\d+)-otel$', extract: $version}, policy: {semver: {range: ^1.0.0}}`), "web:1.10.0-otel"},
		{"extract of two", imagePolicy(`filterTags: {pattern: '^(?P<version>\d+\.\d+\.\d+)-otel', extract: $version}, policy: {semver: {range: ^1.0.0}}`), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(file, []byte(tc.policy), 0o644); err != nil {
				t.Fatal(err)
			}
			selected, err := bed.SelectImages(t.Context(), addr, file)
			if tc.want == "" {
				if err == nil || !strings.Contains(err.Error(), `are both "1.10.0"`) {
					t.Errorf("selected %q, %v, want that two tags are one version", selected, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, image := range selected {
				if !strings.HasPrefix(image, "registry.example.com/shop/"+tc.want+"@") {
					t.Errorf("selected %s, want %s", image, tc.want)
				}
			}
			if len(selected) != 1 {
				t.Errorf("%d policies, want 1", len(selected))
			}
		})
	}

	// What they write into git is what runs.
	kustomize, err := bed.Kustomize(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("kustomize edit", func(t *testing.T) { // Argo CD Image Updater, Kargo
		shop := copyExample(t, "shop")
		for _, overlay := range []string{"staging", "production"} {
			for name, image := range wrapped {
				repository, rest, _ := strings.Cut(image, ":")
				_, digest, _ := strings.Cut(rest, "@")
				cmd := exec.CommandContext(t.Context(), kustomize, "edit", "set", "image", "registry.example.com/shop/"+name+"="+repository+"@"+digest)
				cmd.Dir = filepath.Join(shop, overlay)
				outputOf(t, cmd)
			}
			checkShop(t, output(t, kustomize, "build", filepath.Join(shop, overlay)), wrapped)
		}
	})
	t.Run("markers", func(t *testing.T) { // Flux
		dir := filepath.Dir(copyExample(t, "shop"))
		overlay := filepath.Join(dir, "flux", "staging")
		if err := os.CopyFS(filepath.Join(dir, "flux"), os.DirFS("../../docs/examples/flux")); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(overlay, "kustomization.yaml")
		content := setMarkers(t, string(readFile(t, file)), wrapped)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		checkShop(t, output(t, kustomize, "build", overlay), wrapped)
	})
}

func warehouse(image string) string {
	return "kind: Warehouse\nmetadata: {name: shop}\nspec: {subscriptions: [{name: image, image: {" + image + "}}]}\n"
}

func imageUpdater(image string) string {
	return "kind: ImageUpdater\nmetadata: {name: shop}\nspec: {applicationRefs: [{images: [{alias: image, " + image + "}]}]}\n"
}

func imagePolicy(spec string) string {
	return "kind: ImageRepository\nmetadata: {name: web}\nspec: {image: registry.example.com/shop/web}\n---\n" +
		"kind: ImagePolicy\nmetadata: {name: web}\nspec: {imageRepositoryRef: {name: web}, " + spec + "}\n"
}

// fluxMarker is a line that Flux's automation writes, with the policy and its part.
var fluxMarker = regexp.MustCompile(`(?m)^(.*: )\S+( # \{"\$imagepolicy": "flux-system:(\w+):(name|tag|digest)"\})$`)

// setMarkers sets what an ImageUpdateAutomation would.
func setMarkers(t *testing.T, content string, images map[string]string) string {
	t.Helper()
	return fluxMarker.ReplaceAllStringFunc(content, func(line string) string {
		m := fluxMarker.FindStringSubmatch(line)
		image, digest, ok := strings.Cut(images[m[3]], "@")
		if !ok {
			t.Fatalf("%s: there is no such policy", line)
		}
		name, tag, _ := strings.Cut(image, ":")
		return m[1] + map[string]string{"name": name, "tag": tag, "digest": digest}[m[4]] + m[2]
	})
}

// checkShop expects each of the images once in manifests, by its tag or digest.
func checkShop(t *testing.T, manifests string, images map[string]string) {
	t.Helper()
	for _, image := range images {
		tagged, digest, _ := strings.Cut(image, "@")
		name, _, _ := strings.Cut(tagged, ":")
		n := strings.Count(manifests, " image: "+tagged+"\n") + strings.Count(manifests, " image: "+name+"@"+digest+"\n")
		if n != 1 {
			t.Errorf("%d containers run %s, want 1:\n%s", n, image, manifests)
		}
	}
}
