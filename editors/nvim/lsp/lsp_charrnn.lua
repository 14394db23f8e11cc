-- For Neovim 0.11 and later: vim.lsp.enable('lsp_charrnn'). What goes into init.lua stands in editors/nvim/README.md.
---@type vim.lsp.Config
return {
  cmd = vim.g.lsp_charrnn_cmd or { 'lsp-charrnn', 'serve' },
  filetypes = { 'python' },
  root_markers = { '.git', 'pyproject.toml', 'setup.py' },
  init_options = vim.empty_dict(), -- the server's settings; an empty Lua table would go out as a list
}
