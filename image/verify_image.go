package image

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// An imageVerifier verifies an image of one platform. Its checks build on each
// other: where one does not hold, those that need it are not made.
type imageVerifier struct {
	w          *Wrapper
	node       *node // its source is that of the image, if the labels tell
	wrapped    rewrite.Image
	config     *v1.ConfigFile
	own        string // version of this imgwrap
	exact      bool   // manifest and layers are kept byte for byte where the image is
	origin     *origin
	unreadable error // why there is no origin

	release     *catalog.Release
	bytecode    int         // number of that layer, 0 if there is none
	files       *scan.Index // of the image; those of the source are the source's
	launch      []archived  // what is in the launch layer
	wrap        bundle.Wrap // what that says was decided
	launcher    archived    // the command
	pathFile    string      // absolute, "" if there is none
	environment *python.Environment

	checks []Check
}

// newImageVerifier prepares verifying an image. It is nil for one that imgwrap
// did not wrap. The node's source becomes what the image was wrapped from.
func newImageVerifier(w *Wrapper, n *node, version string) *imageVerifier {
	v := &imageVerifier{
		w:       w,
		node:    n,
		wrapped: rewrite.Image{MediaType: n.opened.MediaType, Manifest: n.opened.RawManifest, Config: n.opened.RawConfig},
		config:  n.opened.Config,
		own:     version,
		exact:   n.source.reference.Transport.KeepsManifests(),
	}
	if v.origin, v.unreadable = readOrigin(v.wrapped, v.config); v.unreadable != nil {
		return v
	}
	if v.origin == nil {
		return nil
	}
	n.source.image, n.source.parsed, n.source.wrapped = v.origin.image, v.origin.parsed, &v.origin.wrapping
	for _, d := range v.origin.index {
		n.source.index = append(n.source.index, d.Raw)
	}
	return v
}

// verify makes the checks. An error is about reading, not about the image.
func (v *imageVerifier) verify(ctx context.Context, s *registry.Source, layers map[v1.Hash]readLayer) error {
	if !v.check("labels", v.labels) {
		return nil
	}
	below := v.check("source layers", v.sourceLayers)
	content := v.check("content", func() (string, error) { return v.content(layers) })
	if below && v.check("added layers", v.addedLayers) && content {
		v.merge(layers)
		if err := v.ownLayers(ctx, s); err != nil {
			return err
		}
	}
	v.check("config", v.configEdits)
	if v.exact {
		v.check("manifest", v.manifestEdits)
	}
	v.check("seal", v.seal)
	return nil
}

func (v *imageVerifier) check(name string, f func() (detail string, err error)) bool {
	detail, err := f()
	v.checks = append(v.checks, newCheck(name, detail, err))
	return err == nil
}

// ownLayers checks the layers that are not the same for all images.
func (v *imageVerifier) ownLayers(ctx context.Context, s *registry.Source) error {
	descriptors := v.node.opened.Manifest.Layers
	if v.bytecode > 0 {
		compiled, err := readArchive(ctx, s, descriptors[v.bytecode])
		if failed(err) {
			return err
		}
		v.check("bytecode", func() (string, error) { return v.bytecodeLayer(compiled, err) })
	}
	launch, err := readArchive(ctx, s, descriptors[len(descriptors)-1])
	if failed(err) {
		return err
	}
	v.launch = launch
	if !v.check("decisions", func() (string, error) { return v.decisions(err) }) {
		return nil
	}
	if v.check("launch layer", v.launchLayer) && v.check("interpreter", v.interpreter) {
		v.check("command", v.command)
		v.check("sys.path", v.sysPath)
	}
	return nil
}

func (v *imageVerifier) labels() (string, error) {
	labels := v.config.Config.Labels
	if v.unreadable != nil {
		return "", v.unreadable
	}
	for _, name := range []string{LabelVersion, LabelSource, LabelRelease, LabelSeal} {
		if labels[name] == "" {
			return "", fmt.Errorf("there is no %s", name)
		}
	}
	digest := v.origin.image.Digest().String()
	if _, named, _ := strings.Cut(v.origin.source, "@"); named != digest {
		return "", fmt.Errorf("%s names %s, and %s holds %s", LabelSource, v.origin.source, LabelOrigin, digest)
	}
	if n, m := len(v.sourceManifest().Layers), len(v.origin.parsed.RootFS.DiffIDs); n != m || n == 0 {
		return "", fmt.Errorf("%s holds a manifest with %d layers and a config with %d", LabelOrigin, n, m)
	}
	return fmt.Sprintf("made of %s with OpenTelemetry %s by imgwrap %s", v.origin.source, labels[LabelRelease], labels[LabelVersion]), nil
}

func (v *imageVerifier) sourceManifest() (m v1.Manifest) {
	_ = json.Unmarshal(v.origin.image.Manifest, &m) // readOrigin has tried
	return m
}

// sources is how many layers the source has.
func (v *imageVerifier) sources() int { return len(v.origin.parsed.RootFS.DiffIDs) }

func (v *imageVerifier) sourceLayers() (string, error) {
	before, now := v.origin.parsed.RootFS.DiffIDs, v.config.RootFS.DiffIDs
	for i, want := range before {
		if i >= len(now) {
			return "", fmt.Errorf("there are %d layers, and the source has %d", len(now), len(before))
		}
		if now[i] != want {
			return "", fmt.Errorf("layer %d unpacks to %s instead of the source's %s", i+1, now[i], want)
		}
	}
	if v.exact {
		if changes := layerChanges(v.sourceManifest().Layers, v.node.opened.Manifest.Layers); changes != nil {
			return "", errors.New(changes[0])
		}
	}
	return fmt.Sprintf("the first %d are the source's", len(before)), nil
}

func (v *imageVerifier) content(layers map[v1.Hash]readLayer) (string, error) {
	descriptors := v.node.opened.Manifest.Layers
	for i, d := range descriptors {
		l := layers[d.Digest]
		if l.problem != nil {
			return "", fmt.Errorf("layer %d: %w", i+1, l.problem)
		}
		if want := v.config.RootFS.DiffIDs[i]; l.diffID != want {
			return "", fmt.Errorf("layer %d unpacks to %s, and the config says %s", i+1, l.diffID, want)
		}
	}
	return fmt.Sprintf("%d layers read, each has its digest and diff ID", len(descriptors)), nil
}

func (v *imageVerifier) merge(layers map[v1.Hash]readLayer) {
	var all []*scan.Layer
	for _, d := range v.node.opened.Manifest.Layers {
		all = append(all, layers[d.Digest].files)
	}
	v.files, v.node.source.files = scan.Merge(all...), scan.Merge(all[:v.sources()]...)
}

// addedLayers tells the added layers apart, and compares those that the catalog
// has recorded with it.
func (v *imageVerifier) addedLayers() (_ string, err error) {
	labels := v.config.Config.Labels
	if v.release, err = v.w.Catalog.Find(labels[LabelRelease]); err != nil {
		return "", fmt.Errorf("this imgwrap, %s, has no release %s: use imgwrap %s", v.own, labels[LabelRelease], labels[LabelVersion])
	}
	recorded, err := bundle.Recorded(v.release)
	if err != nil {
		return "", err
	}
	first, last := v.sources(), len(v.config.RootFS.DiffIDs)-1
	if last <= first {
		return "", fmt.Errorf("there are %d on top of the source's, and wrapping adds the bundle and the launch layer at least", last+1-first)
	}
	if !v.is(first, recorded) {
		return "", fmt.Errorf("layer %d is %s, and the bundle of OpenTelemetry %s is %s in the catalog of imgwrap %s (the image is by %s)",
			first+1, v.node.opened.Manifest.Layers[first].Digest, v.release, recorded.Digest, v.own, labels[LabelVersion])
	}
	detail := fmt.Sprintf("the bundle is the catalog's, and so is each of its %d files", recorded.Files)
	next := first + 1
	if architecture := v.origin.parsed.Architecture; next < last {
		if _, ok := v.release.Native(architecture); ok {
			native, err := v.w.Bundles.Native(context.Background(), v.release, architecture)
			if err != nil {
				return "", err
			}
			if v.is(next, native.Info()) {
				detail += "; the native code too"
				next++
			}
		}
	}
	switch last - next {
	case 0:
		return detail, nil
	case 1:
		v.bytecode = next
		return detail, nil
	}
	return "", fmt.Errorf("layer %d, %s, is none that wrapping adds", next+1, v.node.opened.Manifest.Layers[next].Digest)
}

// is says whether a layer of the image is a certain one.
func (v *imageVerifier) is(number int, l layer.Info) bool {
	return v.config.RootFS.DiffIDs[number] == l.DiffID && (!v.exact || v.node.opened.Manifest.Layers[number].Digest == l.Digest)
}

var bytecodeName = regexp.MustCompile(`^(.+)/__pycache__/([^/]+)\.cpython-(\d)(\d+)\.pyc$`)

// bytecodeLayer checks that there is nothing but bytecode of the bundle and the
// loader. What it was compiled from only the cache of who made it can tell.
func (v *imageVerifier) bytecodeLayer(compiled []archived, err error) (string, error) {
	if err != nil {
		return "", err
	}
	minor := ""
	for _, e := range compiled {
		name := "/" + e.name
		if e.isDir() && (name == bundle.Root || strings.HasPrefix(name, bundle.Root+"/")) && e.ordinary(0o755) {
			continue
		}
		m := bytecodeName.FindStringSubmatch(name)
		if m == nil || !e.isFile() || !e.ordinary(0o644) || m[1] != bundle.InitDir && !within(m[1], bundle.Dir(v.release)) {
			return "", fmt.Errorf("%s is not bytecode of the bundle", name)
		}
		if _, err := v.files.Lstat(m[1] + "/" + m[2] + ".py"); err != nil {
			return "", fmt.Errorf("%s has no source", name)
		}
		// PEP 552: told by the source's hash, not by its time.
		if len(e.content) < 16 || binary.LittleEndian.Uint32(e.content[4:])&1 == 0 {
			return "", fmt.Errorf("%s does not go by the hash of its source", name)
		}
		if version := m[3] + "." + m[4]; cmp.Or(minor, version) != version {
			return "", fmt.Errorf("%s is for Python %s, and others are for %s", name, version, minor)
		} else {
			minor = version
		}
	}
	if l, err := v.w.Bundles.Bytecode(v.release, minor); err == nil && v.is(v.bytecode, l.Info()) {
		return fmt.Sprintf("that of Python %s in this machine's cache", minor), nil
	}
	return fmt.Sprintf("nothing but bytecode of the bundle for Python %s; it is not in this machine's cache to be compared with", minor), nil
}

// within says whether a path is a directory or below it.
func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// decisions checks what the image says was decided about it.
func (v *imageVerifier) decisions(err error) (string, error) {
	if err != nil {
		return "", err
	}
	name := bundle.Root + "/wrap.json"
	i := slices.IndexFunc(v.launch, func(e archived) bool { return "/"+e.name == name && e.isFile() })
	if i < 0 {
		return "", fmt.Errorf("the last layer has no %s", name)
	}
	if err := json.Unmarshal(v.launch[i].content, &v.wrap); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	w, r := v.wrap, v.release
	for _, field := range []struct{ name, got, want string }{
		{"imgwrap", w.Imgwrap, v.config.Config.Labels[LabelVersion]},
		{"release", w.Release, r.Version},
		{"contrib", w.Contrib, r.Contrib},
		{"bundle", w.Bundle, bundle.Dir(r)},
		{"python", fmt.Sprint(w.Python), fmt.Sprint(bundle.PythonRange(r.Python))},
	} {
		if field.got != field.want {
			return "", fmt.Errorf("%s: %s is %s instead of %s", name, field.name, field.got, field.want)
		}
	}
	for _, planned := range w.Instrumentations {
		if !slices.ContainsFunc(r.Instrumentations, func(i catalog.Instrumentation) bool { return i.Name == planned }) {
			return "", fmt.Errorf("%s: OpenTelemetry %s has no instrumentation %s", name, r, planned)
		}
	}
	return fmt.Sprintf("%d instrumentations of OpenTelemetry %s for %s", len(w.Instrumentations), r, w.Interpreter), nil
}

// launchLayer makes the launch layer anew from what was decided, and compares.
// Another version of imgwrap has another launcher and loader: of that only the
// names are compared.
func (v *imageVerifier) launchLayer() (string, error) {
	source := v.node.source.files
	if _, err := source.Lstat(bundle.Root); err == nil {
		return "", fmt.Errorf("the source has a %s already", bundle.Root)
	}
	l := bundle.Launch{Interpreter: v.wrap.Interpreter, Wrap: v.wrap}
	for _, e := range v.launch {
		dir, base := path.Split("/" + e.name)
		hidden, whiteout := strings.CutPrefix(base, ".wh.")
		switch {
		case e.isDir():
			continue
		case whiteout && path.Clean(dir) == v.wrap.Bundle:
			if !slices.ContainsFunc(v.release.Distributions, func(d catalog.Distribution) bool { return bundle.DistInfo(d) == hidden }) {
				return "", fmt.Errorf("/%s hides what is no distribution of the bundle", e.name)
			}
			l.Excluded = append(l.Excluded, hidden)
			continue
		case base == bundle.Command:
			v.launcher, l.Scripts = e, path.Clean(dir)
		case path.Ext(base) == ".pth":
			l.PathFile = "/" + e.name
		}
		if _, err := source.Lstat(e.name); err == nil {
			return "", fmt.Errorf("/%s replaces a file of the source", e.name)
		}
	}
	if l.Scripts == "" {
		return "", fmt.Errorf("it has no %s", bundle.Command)
	}
	v.pathFile = l.PathFile
	for _, i := range v.release.Instrumentations {
		if !slices.Contains(slices.Concat(v.wrap.Instrumentations, v.wrap.Without), i.Name) && !slices.Contains(l.Excluded, v.distInfo(i.Distribution)) {
			return "", fmt.Errorf("the metadata of %s, which is not planned, are not hidden", i.Distribution)
		}
	}
	for _, dir := range []string{l.Scripts, path.Dir(l.PathFile)} {
		if real, ok := realDirectory(source, dir); dir != "." && (!ok || real != dir) {
			return "", fmt.Errorf("%s is no directory of the source", dir)
		}
	}
	l.Parents = parents(source, l.Scripts, bundle.Root, path.Dir(l.PathFile))
	made, err := bundle.LaunchLayer(l)
	if err != nil {
		return "", err
	}
	content, err := made.Uncompressed()
	if err != nil {
		return "", err
	}
	defer content.Close()
	want, err := unarchive(content)
	if err != nil {
		return "", err
	}
	same := v.wrap.Imgwrap == v.own
	if err := compareArchives(want, v.launch, same); err != nil {
		return "", err
	}
	if !same {
		return fmt.Sprintf("it holds what it may, and replaces no file; launcher and loader are those of imgwrap %s, and this is %s", v.wrap.Imgwrap, v.own), nil
	}
	return fmt.Sprintf("launcher and loader are those of this imgwrap, %s; no file is replaced", v.own), nil
}

// distInfo is the name of the metadata directory of a distribution of the bundle.
func (v *imageVerifier) distInfo(name string) string {
	for _, d := range v.release.Distributions {
		if d.Name == name {
			return bundle.DistInfo(d)
		}
	}
	return ""
}

// interpreter checks that the launcher runs with the Python that the image runs.
func (v *imageVerifier) interpreter() (string, error) {
	line, _, _ := strings.Cut(string(v.launcher.content), "\n")
	shebang, _, _ := strings.Cut(strings.TrimPrefix(line, "#!"), " ")
	if link := bundle.Root + "/python"; shebang == link {
		f, err := v.files.Lstat(link)
		if err != nil {
			return "", err
		}
		shebang = f.Linkname
	}
	planned := v.wrap.Interpreter
	if shebang != planned {
		return "", fmt.Errorf("%s runs with %s instead of %s", bundle.Command, shebang, planned)
	}
	f, err := v.files.Stat(planned)
	if err != nil || !f.Mode.IsRegular() || f.Mode.Perm()&0o111 == 0 {
		return "", fmt.Errorf("%s is no program of the image", planned)
	}
	env, err := v.node.source.inspect("")
	if err == nil && env.Command.Sure {
		if i := env.Interpreter; i.Path != planned {
			return "", fmt.Errorf("the command starts %s, and the launcher is for %s", i.Path, planned)
		}
		v.environment = env
		return fmt.Sprintf("%s, which the command starts, is in the image", planned), nil
	}
	if v.environment, err = v.node.source.inspect(planned); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s is in the image; the command does not tell whether it starts that", planned), nil
}

// command checks that what the image starts leads to the loader.
func (v *imageVerifier) command() (string, error) {
	c := v.config.Config
	launcher := "/" + v.launcher.name
	var ways []string
	if !slices.Equal(c.Entrypoint, v.origin.parsed.Config.Entrypoint) && len(c.Entrypoint) > 0 {
		first := c.Entrypoint[0]
		if found := v.find(first, environ(c.Env)["PATH"]); found != launcher {
			return "", fmt.Errorf("ENTRYPOINT starts %s, which is %s and not %s", first, cmp.Or(found, "not there"), launcher)
		}
		ways = append(ways, "ENTRYPOINT starts "+launcher)
	}
	if slices.Contains(strings.Split(environ(c.Env)["PYTHONPATH"], ":"), bundle.InitDir) {
		ways = append(ways, "PYTHONPATH has "+bundle.InitDir)
	}
	if why := isolation(v.environment.Command); why != "" {
		ways = nil // what they set does not reach Python
	}
	if v.pathFile != "" {
		dir := path.Dir(v.pathFile)
		if !slices.ContainsFunc(v.environment.Sites, func(site string) bool {
			real, err := v.files.Resolve(site)
			return err == nil && real == dir
		}) {
			return "", fmt.Errorf("%s does not read %s", v.wrap.Interpreter, v.pathFile)
		}
		ways = append(ways, v.wrap.Interpreter+" reads "+v.pathFile)
	}
	if ways == nil {
		return "", errors.New("nothing leads to the loader")
	}
	return strings.Join(ways, "; "), nil
}

// find returns the file that a command is, "" if there is none.
func (v *imageVerifier) find(command, searchPath string) string {
	files := []string{command}
	if !strings.Contains(command, "/") {
		files = nil
		for dir := range strings.SplitSeq(cmp.Or(searchPath, defaultPath), ":") {
			files = append(files, path.Join(dir, command))
		}
	}
	for _, name := range files {
		if f, err := v.files.Stat(name); err == nil && f.Mode.IsRegular() && f.Mode.Perm()&0o111 != 0 {
			return f.Path
		}
	}
	return ""
}

// sysPath checks that nothing but the loader puts the bundle on sys.path: that
// appends it.
func (v *imageVerifier) sysPath() (string, error) {
	pythonPath := environ(v.config.Config.Env)["PYTHONPATH"]
	for _, dir := range append(strings.Split(pythonPath, ":"), v.wrap.Path...) {
		real, err := v.files.Resolve(dir)
		if err == nil && within(real, bundle.Root) && real != bundle.InitDir {
			return "", fmt.Errorf("%s comes before the app's packages", dir)
		}
	}
	names, err := v.files.ReadDir(bundle.InitDir)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if name != "sitecustomize.py" && name != "__pycache__" {
			return "", fmt.Errorf("there is %s/%s beside the loader", bundle.InitDir, name)
		}
	}
	return fmt.Sprintf("nothing puts %s in front; the loader appends it", v.wrap.Bundle), nil
}

// configEdits compares the config with what wrapping makes of the source's.
func (v *imageVerifier) configEdits() (string, error) {
	want, err := rewrite.Config(v.origin.image.Config, v.edit())
	if err != nil {
		return "", err
	}
	return "it differs from the source's in entry point, environment, labels, time, history and layers alone", compare("", want, v.wrapped.Config)
}

// manifestEdits compares the manifest with what wrapping makes of the source's.
func (v *imageVerifier) manifestEdits() (string, error) {
	if want := v.origin.image.MediaType; v.wrapped.MediaType != want {
		return "", fmt.Errorf("it is %s instead of %s", v.wrapped.MediaType, want)
	}
	want, _, err := rewrite.Manifest(v.origin.image.Manifest, v.origin.image.MediaType, v.wrapped.Config, v.edit())
	if err != nil {
		return "", err
	}
	return "it differs from the source's in config, added layers and base annotations alone", compare("", want, v.wrapped.Manifest)
}

// edit is the edit that would have made the image, as far as what it has is what
// wrapping may set.
func (v *imageVerifier) edit() rewrite.Edit {
	before, now := v.origin.parsed, v.config
	e := rewrite.Edit{
		Labels:      map[string]string{},
		Annotations: map[string]string{AnnotationBaseDigest: v.origin.image.Digest().String()},
		Created:     now.Created.Time,
	}
	for _, name := range []string{LabelVersion, LabelSource, LabelRelease, LabelOrigin, LabelIndex, LabelSeal} {
		if value, ok := now.Config.Labels[name]; ok {
			e.Labels[name] = value
		}
	}
	if name, ok := v.node.opened.Manifest.Annotations[AnnotationBaseName]; ok {
		e.Annotations[AnnotationBaseName] = name
	}
	if entrypoint := now.Config.Entrypoint; len(entrypoint) > 0 && path.Base(entrypoint[0]) == bundle.Command &&
		slices.Equal(entrypoint[1:], before.Config.Entrypoint) {
		e.Entrypoint = entrypoint
	}
	source := environ(before.Config.Env)
	for _, line := range now.Config.Env {
		name, value, _ := strings.Cut(line, "=")
		if !slices.Contains(before.Config.Env, line) && mayBeSet(name, value, source) {
			e.Env = append(e.Env, rewrite.EnvVar{Name: name, Value: value})
		}
	}
	history := now.History[min(len(before.History), len(now.History)):]
	for i := len(before.RootFS.DiffIDs); i < len(now.RootFS.DiffIDs); i++ {
		d := v.node.opened.Manifest.Layers[i]
		added := rewrite.Layer{Digest: d.Digest, Size: d.Size, DiffID: now.RootFS.DiffIDs[i]}
		if len(history) > 0 {
			added.CreatedBy, history = history[0].CreatedBy, history[1:]
		}
		e.Layers = append(e.Layers, added)
	}
	for _, h := range history {
		e.Notes = append(e.Notes, h.CreatedBy)
	}
	return e
}

// mayBeSet says whether wrapping may have set a variable to a value.
func mayBeSet(name, value string, source map[string]string) bool {
	switch name {
	case "PYTHONPATH":
		return value == strings.TrimSuffix(bundle.InitDir+":"+source[name], ":")
	case "UWSGI_ENABLE_THREADS", "UWSGI_PY_CALL_UWSGI_FORK_HOOKS":
		return true
	}
	return strings.HasPrefix(name, "OTEL_")
}

func (v *imageVerifier) seal() (string, error) {
	sealed, err := seal(v.wrapped.Config)
	if err == nil && sealed != v.config.Config.Labels[LabelSeal] {
		err = errors.New("something that wrapping sets in the config has another value since")
	}
	return "the config says what it said when imgwrap wrote it", err
}
