package bundle

import "strings"

// origin heads a stripped file, for whoever looks at it in an image.
const origin = "# Without comments; with them: github.com/imgwrap/imgwrap, layer/bundle/python\n"

// strip takes comments, docstrings and blank lines out of one of our Python
// files: a third of what is uploaded for each image. It does not know Python,
// but the form these files have: a comment has its lines to itself, a docstring
// is the first thing after a colon or in the file, and triple quotes are double
// ones. A test compares what Python makes of both.
func strip(source string) string {
	var b strings.Builder
	b.WriteString(origin)
	var inDocstring, inString bool
	code := "" // the line before
	for line := range strings.Lines(source) {
		text := strings.TrimSpace(line)
		quotes := strings.Count(line, `"""`)%2 == 1
		switch {
		case inDocstring:
			inDocstring = !quotes
			continue
		case inString:
			inString = !quotes
		case text == "" || strings.HasPrefix(text, "#"):
			continue
		case strings.HasPrefix(text, `"""`) && (code == "" || strings.HasSuffix(code, ":")):
			inDocstring = quotes
			if code != "" { // it may be all there is
				code = "pass"
				b.WriteString(line[:strings.Index(line, `"`)] + "pass\n")
			}
			continue
		default:
			inString = quotes
			code = text
		}
		b.WriteString(line)
	}
	return b.String()
}
